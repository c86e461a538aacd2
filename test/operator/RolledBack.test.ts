/** Checkpoints that have left the database: one that does not extend them signs nothing until somebody says, signed, why. */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Logger, Result } from "effect"
import { describe, expect } from "vitest"
import { verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import { hex } from "../../src/domain/Sha256.ts"
import type { AuditKeys } from "../../src/operator/evidence/AuditKeys.ts"
import { publishToFolder } from "../../src/operator/evidence/PublicationFolder.ts"
import { noteRestore } from "../../src/operator/evidence/RestoreNote.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import type { KeptCheckpoint } from "../../src/postgres/Evidence.ts"
import { connect, copyOf, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { regrow, relink, unguarded } from "../support/Rewriter.ts"
import { logName, makeKeys, writePlatform } from "../support/Sealing.ts"
import { startWitness } from "../support/Witness.ts"
import { eventually, kept, on, published, sealed, servicesOf, temporary } from "./PublishedWorld.ts"

const treeOf = (database: TestDatabase, { origin, root, size }: Pick<KeptCheckpoint, "origin" | "root" | "size">) =>
  Effect.map(
    query(
      database.superuserUrl,
      "select problem, note from platform.audit_verify_tree($1, $2::int8, decode($3, 'hex'))",
      [origin, String(size), hex(root)]
    ),
    (rows) => rows.map((row) => row.problem)
  )

const asSuperuser = Effect.fnUntraced(function* (database: TestDatabase, sql: ReadonlyArray<string>) {
  const connection = yield* connect(database.superuserUrl)
  yield* connection.query("begin")
  for (const one of [...unguarded, ...sql]) yield* connection.query(one)
  return connection
})

const tamper = (database: TestDatabase, sql: ReadonlyArray<string>) =>
  Effect.scoped(Effect.flatMap(asSuperuser(database, sql), (connection) => connection.query("commit")))

/** What the tree's verification against a checkpoint says after a change, which is undone. */
const rewritten = (
  database: TestDatabase,
  sql: ReadonlyArray<string>,
  { origin, root, size }: Pick<KeptCheckpoint, "origin" | "root" | "size">
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* asSuperuser(database, sql)
      const { rows } = yield* connection.query(
        "select problem from platform.audit_verify_tree($1, $2::int8, decode($3, 'hex'))",
        [origin, String(size), hex(root)]
      )
      return rows.map((row) => row.problem)
    })
  )

/** A log that was sealed and published, backed up, and went on: what is outside is past the backup. */
const backedUp = Effect.fnUntraced(function* (keys: AuditKeys, settings: Partial<Sealer.SealerSettings>) {
  const database = yield* freshDatabase
  yield* writePlatform(database.operatorUrl, 400)
  const before = yield* on(database, sealed(keys, settings))
  const backup = yield* copyOf(database)
  yield* writePlatform(database.operatorUrl, 300)
  const lost = yield* on(database, sealed(keys, settings))
  return { database, backup, before, lost }
})

const rolledBack = (database: TestDatabase, keys: AuditKeys, settings: Partial<Sealer.SealerSettings>) =>
  on(database, Effect.flip(sealed(keys, settings)))

describe("a database restored from an older copy", () => {
  it.live("signs nothing, says what to do, and goes on under a new origin once that is said", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const outside = join(folder, "outside")
      const keys = yield* makeKeys()
      const { backup, before, lost } = yield* backedUp(keys, {})
      yield* Effect.promise(() => writeFile(outside, lost.note))
      // new entries make the tree as long as it was, and no nearer
      for (const more of [0, 1_000]) {
        if (more > 0) yield* writePlatform(backup.operatorUrl, more)
        expect(yield* rolledBack(backup, keys, { outside })).toMatchObject({
          _tag: "RolledBack",
          message: expect.stringContaining(`the tree has ${before.size} leaves, and the checkpoint has ${lost.size}`)
        })
      }
      expect(yield* kept(backup)).toMatchObject([{ epoch: 1, size: before.size }])

      const source = { source: outside, note: lost.note }
      const stranger = yield* makeKeys()
      expect(yield* on(backup, Effect.flip(noteRestore(stranger, source, "a disk")))).toMatchObject({
        _tag: "OutsideUnreadable"
      })
      expect(yield* on(backup, Effect.flip(noteRestore(keys, source, "two\nlines")))).toMatchObject({
        _tag: "RestoreRefused"
      })
      const extended = { source: outside, note: before.note }
      expect(yield* on(backup, Effect.flip(noteRestore(keys, extended, "a disk")))).toMatchObject({
        _tag: "RestoreRefused"
      })
      expect(yield* kept(backup)).toHaveLength(1)

      const note = yield* on(backup, noteRestore(keys, source, "the disk died, backup of 03:00"))
      const said = Result.getOrThrow(
        yield* Effect.promise(() => verifyCheckpoint(note.note, [keys.signers[0].verifier]))
      ).checkpoint
      expect(said).toMatchObject({ origin: `${logName}/2`, size: before.size, root: before.root })
      expect(said.extensions).toEqual([
        `restored ${logName} ${lost.size} ${Buffer.from(lost.root).toString("base64")} the disk died, backup of 03:00`
      ])
      const [entry] = yield* query(
        backup.superuserUrl,
        "select action, reason from platform.audit_log where action = 'operator.audit.restore'"
      )
      expect(entry).toEqual({ action: "operator.audit.restore", reason: "the disk died, backup of 03:00" })

      const next = yield* on(backup, sealed(keys, { outside }))
      expect(next).toMatchObject({ epoch: 2, origin: `${logName}/2` })
      expect(next.size).toBeGreaterThan(lost.size)
      // that gap is accounted for, and no other
      expect(yield* treeOf(backup, lost)).toEqual(["restored"])
      expect(yield* treeOf(backup, before)).toEqual([])
      expect(yield* treeOf(backup, next)).toEqual([])
      expect(yield* treeOf(backup, { ...lost, size: lost.size + 1 })).toEqual(["rewritten"])
      expect(yield* treeOf(backup, { ...before, root: lost.root })).toEqual(["rewritten"])
      expect(yield* treeOf(backup, { ...next, root: lost.root })).toEqual(["rewritten"])
      // the note was signed with the head that was restored: what is below the gap it does not account for
      const below = [
        "update platform.audit_log a set actor = 'operator/mallory' where a.chain = 'platform' and a.seq = 10",
        relink("a.chain = 'platform'", 10),
        ...regrow
      ]
      expect(yield* rewritten(backup, below, lost)).toEqual(["rewritten"])
      expect(yield* rewritten(backup, below, before)).toEqual(["rewritten"])
      // nor by a column, which nobody signed
      const widened =
        "update platform.audit_checkpoints set size = 0 where epoch = 2 and size = (select min(size) from platform.audit_checkpoints where epoch = 2)"
      expect(yield* rewritten(backup, [...below, widened], before)).toEqual(["rewritten"])
      expect(yield* rewritten(backup, [widened], { ...before, root: lost.root })).toEqual(["rewritten"])
      expect(yield* rewritten(backup, [widened], lost)).toEqual(["restored"])
      // the sealer is as strict
      const rewriting = yield* copyOf(backup)
      yield* tamper(rewriting, below)
      expect(yield* rolledBack(rewriting, keys, { outside })).toMatchObject({ _tag: "RolledBack" })
    })
  )

  it.live("is not helped by a restore note that the key did not sign", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const outside = join(folder, "outside")
      const keys = yield* makeKeys()
      const { backup, lost } = yield* backedUp(keys, {})
      yield* Effect.promise(() => writeFile(outside, lost.note))
      const root = Buffer.from(lost.root).toString("base64")
      yield* query(
        backup.superuserUrl,
        `select platform.audit_checkpoint_add(2, platform.audit_tree_size(), '${logName}/2', platform.audit_tree_root(),
           format(E'${logName}/2\\n%s\\n%s\\nrestored ${logName} ${lost.size} ${root} nothing to see\\n\\n— x y\\n',
             platform.audit_tree_size(), encode(platform.audit_tree_root(), 'base64')))`
      )
      expect(yield* rolledBack(backup, keys, { outside })).toMatchObject({ _tag: "RolledBack" })
    })
  )

  it.live("is told by the folder and by a witness as well", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const keys = yield* makeKeys()
      const witness = yield* startWitness(keys.signers.map(({ verifier }) => verifier))
      const database = yield* freshDatabase
      yield* writePlatform(database.operatorUrl, 10)
      const settings = { publishDir: folder, witnesses: [{ url: witness.url, keys: [] }] }
      const both = (made: KeptCheckpoint) =>
        Effect.andThen(
          published(database, folder)(made),
          eventually(async () => witness.seen.get(logName)?.size === made.size)
        )
      yield* on(database, sealed(keys, settings, both))
      const backup = yield* copyOf(database)
      yield* writePlatform(database.operatorUrl, 10)
      yield* on(database, sealed(keys, settings, both))
      yield* writePlatform(backup.operatorUrl, 50)
      for (const one of [{ publishDir: folder }, { witnesses: [{ url: witness.url, keys: [] }] }]) {
        expect(yield* rolledBack(backup, keys, one)).toMatchObject({ _tag: "RolledBack" })
      }
      expect(yield* kept(backup)).toHaveLength(1)
    })
  )

  it.live("logs it and goes on by itself after the note", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const outside = join(folder, "outside")
      const keys = yield* makeKeys()
      const { backup, lost } = yield* backedUp(keys, {})
      yield* Effect.promise(() => writeFile(outside, lost.note))
      yield* writePlatform(backup.operatorUrl, 5)
      const epochs = async () => (await Effect.runPromise(kept(backup))).map((row) => row.epoch)
      const logs: Array<string> = []
      const logger = Logger.make(({ message }) => logs.push(String(message)))
      /** Runs the sealer as the operator does until it has said or done what is waited for. */
      const runUntil = (over: () => Promise<boolean>) =>
        Effect.gen(function* () {
          const running = yield* Effect.forkChild(Sealer.run({ publishDir: undefined, witnesses: [], outside }))
          yield* eventually(over)
          yield* Fiber.interrupt(running)
        }).pipe(
          Effect.provide(servicesOf(backup, { VELOCITY_AUDIT_KEY: keys.texts[0] ?? "" })),
          Effect.provide(Logger.layer([logger])),
          Effect.scoped
        )
      yield* runUntil(async () => logs.some((line) => line.includes("velocity audit restore-note --checkpoint FILE")))
      expect(yield* Effect.promise(epochs)).toEqual([1])
      yield* on(backup, noteRestore(keys, { source: outside, note: lost.note }, "a drill"))
      yield* runUntil(async () => (await epochs()).length === 3)
      expect(yield* Effect.promise(epochs)).toEqual([1, 2, 2])
    })
  )
})

describe("a fail-over that lost the last seconds", () => {
  it.live("is noticed by the sealer that goes on: it remembers what it signed", () =>
    Effect.gen(function* () {
      const keys = yield* makeKeys()
      const database = yield* freshDatabase
      yield* writePlatform(database.operatorUrl, 20)
      yield* on(database, sealed(keys))
      const lagging = yield* copyOf(database)
      const primary = yield* Layer.build(servicesOf(database)).pipe(Effect.map(Context.get(Fence)))
      const replica = yield* Layer.build(servicesOf(lagging)).pipe(Effect.map(Context.get(Fence)))
      let current = primary
      const fence = Fence.of({
        epoch: primary.epoch,
        source: primary.source,
        transaction: (f) => current.transaction(f),
        alone: (f, options) => current.alone(f, options),
        long: (f) => current.long(f),
        read: (f) => current.read(f)
      })
      const sealer = yield* Effect.provideService(
        Sealer.make({ publishDir: undefined, witnesses: [], outside: undefined }),
        Fence,
        fence
      )
      yield* writePlatform(database.operatorUrl, 20)
      expect(yield* sealer.round(keys)).toBeDefined()
      current = replica
      expect(yield* Effect.flip(sealer.round(keys))).toMatchObject({ _tag: "RolledBack" })
      // other entries in the place of those that were lost
      yield* writePlatform(lagging.operatorUrl, 100)
      expect(yield* Effect.flip(sealer.round(keys))).toMatchObject({ _tag: "RolledBack" })
      expect(yield* kept(lagging)).toHaveLength(1)
    })
  )
})

describe("a checkpoint outside that is not to be understood", () => {
  it.live("stops the sealer too: what it says cannot be told", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const outside = join(folder, "outside")
      const keys = yield* makeKeys()
      const database = yield* freshDatabase
      yield* writePlatform(database.operatorUrl, 5)
      const refused = (settings: Partial<Sealer.SealerSettings>) =>
        Effect.map(rolledBack(database, keys, settings), (error) => (error as { readonly _tag: string })._tag)
      expect(yield* refused({ outside })).toBe("OutsideUnreadable")
      yield* Effect.promise(() => writeFile(outside, "nothing of the kind\n"))
      expect(yield* refused({ outside })).toBe("OutsideUnreadable")
      const stranger = yield* makeKeys(1, "other.example")
      const foreign = yield* freshDatabase
      yield* writePlatform(foreign.operatorUrl, 5)
      const made = yield* on(foreign, sealed(stranger))
      yield* Effect.promise(() => writeFile(join(folder, "checkpoint"), made.note))
      expect(yield* refused({ publishDir: folder })).toBe("OutsideUnreadable")
      expect(yield* Effect.promise(() => readFile(join(folder, "checkpoint"), "utf8"))).toBe(made.note)
      expect(yield* kept(database)).toEqual([])
    })
  )
})

describe("a folder of publication that has lost its checkpoint", () => {
  it.live("stops the sealer, a restored database's too, and is not begun anew", () =>
    Effect.gen(function* () {
      const parent = yield* temporary
      const folder = join(parent, "published")
      const keys = yield* makeKeys()
      const witness = yield* startWitness(keys.signers.map(({ verifier }) => verifier))
      const database = yield* freshDatabase
      // what a witness has is not in the folder: one that is configured later begins
      yield* writePlatform(database.operatorUrl, 5)
      const witnesses = [{ url: witness.url, keys: [witness.verifier] }]
      const cosigned = () => eventually(async () => (await Effect.runPromise(kept(database)))[0]?.cosignatures !== "")
      yield* on(database, sealed(keys, { witnesses }, cosigned))
      yield* writePlatform(database.operatorUrl, 5)
      yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
      const backup = yield* copyOf(database)
      yield* writePlatform(database.operatorUrl, 5)
      const lost = yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
      const before = yield* kept(database)

      // not mounted: the folder is gone, or the empty one below the mount is seen
      for (const unmount of [() => rm(folder, { recursive: true }), () => mkdir(folder)]) {
        yield* Effect.promise(unmount)
        const were = yield* Effect.promise(() => readdir(parent, { recursive: true }))
        for (const one of [database, backup]) {
          yield* writePlatform(one.operatorUrl, 5)
          expect(yield* rolledBack(one, keys, { publishDir: folder })).toMatchObject({
            _tag: "OutsideUnreadable",
            message: expect.stringContaining("mount it again")
          })
        }
        // nor does a sealer that runs put anything there
        expect(yield* on(database, Effect.flip(publishToFolder(folder, lost)))).toMatchObject({
          _tag: "OutsideUnreadable"
        })
        expect(yield* Effect.promise(() => readdir(parent, { recursive: true }))).toEqual(were)
      }
      expect(yield* kept(database)).toEqual(before)

      // with what is known outside it goes on, and the restored one is told what it is
      yield* Effect.promise(() => writeFile(join(folder, "checkpoint"), lost.note))
      expect(yield* rolledBack(backup, keys, { publishDir: folder })).toMatchObject({ _tag: "RolledBack" })
      yield* on(database, sealed(keys, { publishDir: folder }, published(database, folder)))
    })
  )
})
