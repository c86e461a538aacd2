/**
 * Checkpoints on their way out: they get to a folder and to witnesses whatever fails meanwhile, and what a witness answers
 * does no harm.
 */
import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Context, Effect, Layer, Logger, Result } from "effect"
import { TestClock } from "effect/testing"
import { describe, expect } from "vitest"
import { formatCheckpoint, verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import { cosign, verifyCosignatures } from "../../src/domain/Cosignature.ts"
import { generateSignerKey, keyTypes, parseSignerKey } from "../../src/domain/NoteKey.ts"
import {
  formatSignatureLine,
  maxSignatures,
  type NoteSigner,
  type NoteVerifier,
  parseNote,
  signNote
} from "../../src/domain/SignedNote.ts"
import type { AuditKeys } from "../../src/operator/evidence/AuditKeys.ts"
import { publishToFolder } from "../../src/operator/evidence/PublicationFolder.ts"
import * as Publisher from "../../src/operator/evidence/Publisher.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { witnessSettings } from "../../src/operator/evidence/Witness.ts"
import { Fence, Superseded } from "../../src/operator/state/Fence.ts"
import { sqlStateOf } from "../../src/postgres/DatabaseFailure.ts"
import type { KeptCheckpoint } from "../../src/postgres/Evidence.ts"
import type { Tx } from "../../src/postgres/OperatorSql.ts"
import { freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { logName, makeKeys, writePlatform } from "../support/Sealing.ts"
import { startWitness, witnessEpoch } from "../support/Witness.ts"
import { eventually, kept, on, published, sealed, servicesOf, temporary } from "./PublishedWorld.ts"

describe("a checkpoint", () => {
  it.live("gets into the folder whole, with its history, after its commit", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const keys = yield* makeKeys()
      yield* writePlatform(database.operatorUrl, 5)
      const first = yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
      yield* writePlatform(database.operatorUrl, 5)
      const second = yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
      expect((yield* Effect.promise(() => readdir(join(folder, "history", "1")))).sort()).toEqual(
        [first, second].map(({ size }) => String(size)).sort()
      )
      expect(yield* Effect.promise(() => readdir(folder))).toEqual(["checkpoint", "history"])
      expect((yield* kept(database)).map((row) => row.published)).toEqual([true, true])
    })
  )

  it.live("gets to a witness that fails, hangs up and has lost count, and its cosignature is kept", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const keys = yield* makeKeys()
      const witness = yield* startWitness(keys.signers.map(({ verifier }) => verifier))
      const settings = { publishDir: folder, witnesses: [{ url: witness.url, keys: [] }] }
      witness.misbehave(
        (response) => response.writeHead(500).end("not now"),
        (response) => response.destroy(),
        (response) => response.writeHead(409, { "content-type": "text/x.tlog.size" }).end("many\n")
      )
      yield* writePlatform(database.operatorUrl, 300)
      const cosigned = (made: KeptCheckpoint) =>
        eventually(async () => {
          const row = (await Effect.runPromise(kept(database))).at(-1)
          const text = await readFile(join(folder, "checkpoint"), "utf8").catch(() => "")
          return row?.size === made.size && row.cosignatures !== "" && text.endsWith(String(row.cosignatures))
        })
      const first = yield* on(database, sealed(keys, settings, cosigned))
      expect(witness.seen.get(logName)?.size).toBe(first.size)
      expect(witness.requests.length).toBeGreaterThanOrEqual(4)
      // a sealer that starts anew does not know what the witness has seen, and is told
      yield* writePlatform(database.operatorUrl, 300)
      const second = yield* on(database, sealed(keys, settings, cosigned))
      expect(witness.seen.get(logName)?.size).toBe(second.size)
      const note = yield* Effect.promise(() => readFile(join(folder, "checkpoint"), "utf8"))
      const parsed = Result.getOrThrow(parseNote(note))
      const cosignatures = yield* Effect.promise(() => verifyCosignatures(parsed, [witness.verifier]))
      expect(Result.getOrThrow(cosignatures)).toHaveLength(1)
      const log = yield* Effect.promise(() => verifyCheckpoint(note, [keys.signers[0].verifier]))
      expect(Result.getOrThrow(log).checkpoint.size).toBe(second.size)
    })
  )

  it.live("holds up no sealing where nobody takes it", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const keys = yield* makeKeys()
      const settings = { publishDir: "/proc/no/such/folder", witnesses: [{ url: "http://127.0.0.1:9/w", keys: [] }] }
      yield* on(
        database,
        Effect.gen(function* () {
          const sealer = yield* Sealer.make({ outside: undefined, ...settings })
          yield* sealer.check(keys)
          for (let n = 0; n < 3; n++) {
            yield* writePlatform(database.operatorUrl, 5)
            expect(yield* sealer.round(keys)).toBeDefined()
          }
        })
      )
      expect((yield* kept(database)).map((row) => row.published)).toEqual([false, false, false])
    })
  )
})

describe("the folder", () => {
  it.live("takes nothing from an operator that was stopped before it published, and goes on under another's term", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const keys = yield* makeKeys()
      const stopped = yield* Layer.build(servicesOf(database)).pipe(Effect.map(Context.get(Fence)))
      yield* writePlatform(database.operatorUrl, 5)
      const sealer = yield* Effect.provideService(
        Sealer.make({ publishDir: undefined, witnesses: [], outside: undefined }),
        Fence,
        stopped
      )
      const late = yield* sealer.round(keys)
      if (late === undefined) throw new Error("there was nothing to seal")
      yield* writePlatform(database.operatorUrl, 5)
      const newer = yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
      const files = Effect.promise(async () => ({
        names: (await readdir(folder, { recursive: true })).sort(),
        checkpoint: await readFile(join(folder, "checkpoint"), "utf8")
      }))
      const before = yield* files
      expect(before.checkpoint).toBe(newer.note)
      expect(
        yield* publishToFolder(folder, late).pipe(Effect.provideService(Fence, stopped), Effect.flip)
      ).toMatchObject({ _tag: "Superseded" })
      expect(yield* files).toEqual(before)
      // nor an older one from anybody
      expect(yield* on(database, Effect.flip(publishToFolder(folder, late)))).toMatchObject({
        _tag: "PublicationFailed",
        message: expect.stringContaining(`newer, of ${newer.size} leaves`)
      })
      expect(yield* files).toEqual(before)
      // the same again is no step back: a witness has cosigned it, or another key signed it
      yield* on(database, publishToFolder(folder, { ...newer, cosignatures: "\u2014 w.example AAAAAAAA\n" }))
      expect((yield* files).checkpoint).toBe(`${newer.note}\u2014 w.example AAAAAAAA\n`)
    })
  )

  it.effect("is not tried again by whoever was superseded", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const superseded = new Superseded({ message: "another holds the term" })
      const fence = Fence.of({
        epoch: "1",
        source: "folder",
        transaction: () => Effect.fail(superseded),
        long: () => Effect.fail(superseded),
        alone: () => Effect.die("nothing is asked alone"),
        read: (f) => f({ query: () => Effect.succeed({ rows: [], command: "", rowCount: 0 }) } as unknown as Tx)
      })
      const logs: Array<string> = []
      const logger = Logger.make(({ message }) => logs.push(String(message)))
      const checkpoint = (size: number): KeptCheckpoint => ({
        epoch: 1,
        size,
        origin: logName,
        root: new Uint8Array(32),
        note: `of ${size}`,
        cosignatures: ""
      })
      yield* Effect.gen(function* () {
        const publisher = yield* Publisher.make({ publishDir: folder, witnesses: [] }, () => Effect.void)
        for (const size of [5, 6]) {
          yield* publisher.offer(checkpoint(size))
          yield* eventually(async () => logs.some((line) => line.includes(`of ${size} leaves`)))
          // far beyond any pause between attempts
          yield* TestClock.adjust("1 hour")
        }
      }).pipe(Effect.provideService(Fence, fence), Effect.provide(Logger.layer([logger])), Effect.scoped)
      expect(logs).toEqual(
        [5, 6].map((size) => `the checkpoint of ${size} leaves is not published: ${superseded.message}`)
      )
      expect((yield* Effect.promise(() => readdir(folder, { recursive: true }))).sort()).toEqual([
        "history",
        "history/1"
      ])
    })
  )

  it.live("gives up nothing for another tree, another log, or in place of what is no checkpoint", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const keys = yield* makeKeys()
      yield* writePlatform(database.operatorUrl, 5)
      const made = yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
      const fork = { ...made, root: new Uint8Array(32) }
      const signed = (checkpoint: Partial<KeptCheckpoint>) =>
        Effect.promise(() => signNote(formatCheckpoint({ ...made, ...checkpoint, extensions: [] }), keys.signers[0]))
      for (const there of [
        yield* signed({ root: fork.root }),
        yield* signed({ origin: "other.example/log" }),
        yield* signed({ origin: `${made.origin}/2`, size: 0 }),
        "no checkpoint\n"
      ]) {
        yield* Effect.promise(() => writeFile(join(folder, "checkpoint"), there))
        expect(yield* on(database, Effect.flip(publishToFolder(folder, made)))).toMatchObject({
          _tag: "PublicationFailed"
        })
        expect(yield* Effect.promise(() => readFile(join(folder, "checkpoint"), "utf8"))).toBe(there)
      }
    })
  )
})

/** The newest checkpoint as it is kept, with all its lines. */
const whole = (database: TestDatabase) =>
  Effect.map(
    query(
      database.superuserUrl,
      "select note || cosignatures as note, cosignatures from platform.audit_checkpoints order by epoch desc, size desc limit 1"
    ),
    ([row]) => ({
      note: Result.getOrThrow(parseNote(String(row?.note))),
      cosignatures: String(row?.cosignatures).split("\n").slice(0, -1)
    })
  )

const signerOf = (name: string) =>
  Effect.promise(async () => {
    const { signerKey } = await generateSignerKey(name, keyTypes.cosignature)
    return Result.getOrThrow(await parseSignerKey(signerKey, keyTypes.cosignature))
  })

describe("what a witness answers", () => {
  it.live("is kept once for a key, however often it is asked: each time the line is another one", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const keys = yield* makeKeys()
      const witness = yield* startWitness(keys.signers.map(({ verifier }) => verifier))
      const settings = { publishDir: folder, witnesses: [{ url: witness.url, keys: [witness.verifier] }] }
      yield* writePlatform(database.operatorUrl, 5)
      yield* on(database, sealed(keys, settings, published(database, folder)))
      // an idle log is submitted again whenever a sealer starts, and each minute while something is wrong
      yield* on(
        database,
        Effect.gen(function* () {
          const sealer = yield* Sealer.make({ outside: undefined, ...settings })
          for (let n = 0; n <= maxSignatures / 2; n++) yield* sealer.check(keys)
        })
      )
      expect(witness.requests.length).toBeGreaterThan(maxSignatures)
      const { cosignatures, note } = yield* whole(database)
      expect(cosignatures).toHaveLength(1)
      expect(note.signatures).toHaveLength(2)
      const verified = yield* Effect.promise(() => verifyCosignatures(note, [witness.verifier]))
      expect(Result.getOrThrow(verified)).toMatchObject([{ time: witnessEpoch }])
    })
  )

  it.live("leaves the checkpoint one that can be read, whatever names it makes up", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const keys = yield* makeKeys()
      const witness = yield* startWitness(keys.signers.map(({ verifier }) => verifier))
      const settings = { publishDir: folder, witnesses: [{ url: witness.url, keys: [] }] }
      yield* writePlatform(database.operatorUrl, 5)
      yield* on(database, sealed(keys, settings, published(database, folder)))
      const log = keys.signers[0].verifier
      let made = 0
      const madeUp = () => {
        const signature = new Uint8Array(72).fill(made)
        const lines = Array.from({ length: 20 }, () =>
          formatSignatureLine({ name: `w${made++}.example`, keyId: Uint8Array.of(1, 2, 3, 4), signature })
        )
        // nor does it speak in the log's name, nor with what is no line
        const inItsName = formatSignatureLine({ name: log.name, keyId: Uint8Array.of(9, 9, 9, 9), signature })
        return [inItsName, "no line", `\u2014 w.example ${"A".repeat(10_000)}`, ...lines, ""].join("\n")
      }
      yield* on(
        database,
        Effect.gen(function* () {
          const sealer = yield* Sealer.make({ outside: undefined, ...settings })
          for (let n = 0; n < 10; n++) {
            witness.misbehave((response) => response.writeHead(200).end(madeUp()))
            yield* sealer.check(keys)
          }
        })
      )
      const { cosignatures, note } = yield* whole(database)
      expect(cosignatures).toHaveLength(32)
      expect(note.signatures.filter(({ name }) => name === log.name)).toHaveLength(1)
      yield* on(database, Effect.andThen(writePlatform(database.operatorUrl, 5), sealed(keys, settings)))
    })
  )

  it.live("is verified where its key is given, and is no other witness's word", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const keys = yield* makeKeys()
      const trusted = keys.signers.map(({ verifier }) => verifier)
      const [honest, liar] = [yield* startWitness(trusted), yield* startWitness(trusted)]
      const stranger = yield* signerOf("stranger.example")
      const forged = (of: { readonly name: string; readonly keyId: Uint8Array }) =>
        formatSignatureLine({ name: of.name, keyId: of.keyId, signature: new Uint8Array(72) })
      yield* writePlatform(database.operatorUrl, 5)
      const made = yield* on(database, sealed(keys))
      const { body } = Result.getOrThrow(parseNote(made.note))
      const strangers = yield* Effect.promise(() => cosign(body, stranger, witnessEpoch))
      const ask = (answer: string, given: ReadonlyArray<NoteVerifier>) => {
        liar.misbehave((response) => response.writeHead(200).end(answer))
        const witness = { url: liar.url, keys: given }
        const all = [witness, { url: honest.url, keys: [honest.verifier] }]
        return on(database, Effect.result(Publisher.publishToWitness(witness, all, made, 0)))
      }
      // whose key is not given may say what it likes, but not with a key that is known
      yield* ask(`${forged(honest.verifier)}\n${formatSignatureLine(strangers)}\n`, [])
      expect((yield* whole(database)).cosignatures).toEqual([formatSignatureLine(strangers)])
      // whose key is given says what that key signed, or it is asked again
      expect(yield* ask(`${forged(liar.verifier)}\n`, [liar.verifier])).toMatchObject({
        failure: { _tag: "PublicationFailed", message: expect.stringContaining("without a cosignature of the key") }
      })
      expect((yield* whole(database)).cosignatures).toHaveLength(1)
      const settings = {
        witnesses: [honest, liar].map(({ url, verifier }) => ({ url, keys: [verifier] }))
      }
      yield* on(
        database,
        Effect.flatMap(Sealer.make({ publishDir: undefined, outside: undefined, ...settings }), (sealer) =>
          sealer.check(keys)
        )
      )
      const { note } = yield* whole(database)
      const cosigned = yield* Effect.promise(() => verifyCosignatures(note, [honest.verifier, liar.verifier]))
      expect(Result.getOrThrow(cosigned)).toHaveLength(2)
    })
  )

  it.live("is not read for ever", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const keys = yield* makeKeys()
      const witness = yield* startWitness(keys.signers.map(({ verifier }) => verifier))
      const asked = { url: witness.url, keys: [witness.verifier] }
      yield* writePlatform(database.operatorUrl, 5)
      const made = yield* on(database, sealed(keys))
      witness.misbehave((response) => {
        const more = () => {
          while (response.write("x".repeat(4_096)));
          response.once("drain", more)
        }
        response.writeHead(200)
        more()
      })
      expect(yield* on(database, Effect.flip(Publisher.publishToWitness(asked, [asked], made, 0)))).toMatchObject({
        _tag: "PublicationFailed",
        message: expect.stringContaining("longer than")
      })
      yield* on(database, Publisher.publishToWitness(asked, [asked], made, 0))
      expect((yield* whole(database)).cosignatures).toHaveLength(1)
    })
  )
})

describe("a key that is changed while nothing is written", () => {
  it.live("signs what stands, so that the log's newest word outlives the key before it", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* temporary
      const both = yield* makeKeys(2)
      const [old, next] = both.signers as unknown as readonly [NoteSigner, NoteSigner]
      const only = (signer: NoteSigner): AuditKeys => ({ name: both.name, signers: [signer] })
      const witness = yield* startWitness([next.verifier])
      const asked = { url: witness.url, keys: [witness.verifier] }
      yield* writePlatform(database.operatorUrl, 5)
      const first = yield* on(database, sealed(only(old), { publishDir: folder }, published(database, folder)))
      const overlap = yield* on(
        database,
        sealed(both, { publishDir: folder, witnesses: [asked] }, (made) =>
          Effect.andThen(
            published(database, folder)(made),
            // one that knows the new key alone takes it too
            eventually(async () => witness.seen.get(logName)?.size === made.size)
          )
        )
      )
      expect(overlap).toMatchObject({ epoch: 1, size: first.size, root: first.root })
      expect(overlap.note.startsWith(first.note)).toBe(true)
      const out = yield* Effect.promise(() => readFile(join(folder, "checkpoint"), "utf8"))
      for (const { verifier } of [old, next]) {
        const verified = yield* Effect.promise(() => verifyCheckpoint(out, [verifier]))
        expect(Result.getOrThrow(verified).checkpoint).toMatchObject({ size: first.size, root: first.root })
      }
      // it signs once
      expect(
        yield* on(
          database,
          Effect.flatMap(Sealer.make({ publishDir: folder, witnesses: [], outside: undefined }), (sealer) =>
            sealer.round(both)
          )
        )
      ).toBeUndefined()
      yield* writePlatform(database.operatorUrl, 5)
      const last = yield* on(database, sealed(only(next), { publishDir: folder }, published(database, folder)))
      expect(last.size).toBeGreaterThan(first.size)
      expect(yield* query(database.superuserUrl, "select * from platform.audit_verify_tree(null, null, null)")).toEqual(
        []
      )
    })
  )

  it.live("does not sign what none of the keys in force has signed", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      yield* writePlatform(database.operatorUrl, 5)
      const made = yield* on(database, sealed(yield* makeKeys(2)))
      const others = yield* makeKeys(2)
      const nowhere = { publishDir: undefined, witnesses: [], outside: undefined }
      expect(
        yield* on(
          database,
          Effect.flatMap(Sealer.make(nowhere), (sealer) => sealer.round(others))
        )
      ).toBeUndefined()
      // nor does its owner put anything but a signature behind it
      for (const text of ["anything", "\n\n", "restored x 1 x why\n", "\u2014 no signature\n"]) {
        const failed = yield* Effect.flip(
          query(database.superuserUrl, "update platform.audit_checkpoints set note = note || $1", [text])
        )
        expect(sqlStateOf(failed)).toBe("VL001")
      }
      expect((yield* whole(database)).note).toEqual(Result.getOrThrow(parseNote(made.note)))
    })
  )
})

describe("VELOCITY_AUDIT_WITNESSES", () => {
  const read = (text: string) =>
    Effect.result(witnessSettings.parse(ConfigProvider.fromUnknown({ VELOCITY_AUDIT_WITNESSES: text })))

  it.effect("says where witnesses are, and may say their keys", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* signerOf("w.example/1"), yield* signerOf("w.example/2")]
      const text = `https://a.example/w, https://b.example ${one.verifier.text}  ${two.verifier.text},`
      expect(Result.getOrThrow(yield* read(text))).toEqual([
        { url: "https://a.example/w", keys: [] },
        { url: "https://b.example", keys: [one.verifier, two.verifier] }
      ])
      expect(Result.getOrThrow(yield* read(""))).toEqual([])
      const log = (yield* makeKeys()).verifierKeys[0]
      for (const wrong of ["w.example", `${one.verifier.text} https://b.example`, `https://b.example ${log}`]) {
        const failure = Result.getFailure(yield* read(wrong))
        expect(String(failure)).toContain("VELOCITY_AUDIT_WITNESSES")
        expect(String(failure)).not.toContain(one.verifier.text)
      }
    })
  )
})
