/** The proof of one entry: proved as it is, refuted with anything in it changed, and never believed for lack of a key. */
import { Result } from "effect"
import fc from "fast-check"
import { beforeAll, describe, expect, it } from "vitest"
import { type AuditEntry, entryHash } from "../../src/domain/AuditEntry.ts"
import { formatCheckpoint, parseCheckpoint } from "../../src/domain/Checkpoint.ts"
import { cosign, parseWitnessKey } from "../../src/domain/Cosignature.ts"
import {
  type EntryProofDocument,
  type EntryProofFault,
  type EntryProofOptions,
  parseEntry,
  parseEntryProof,
  verifyEntryProof
} from "../../src/domain/EntryProof.ts"
import {
  generateSignerKey,
  keyTypes,
  type NoteVerifier,
  parseSignerKey,
  parseVerifierKey
} from "../../src/domain/NoteKey.ts"
import { hex } from "../../src/domain/Sha256.ts"
import { parseNote, signNote, withSignatures } from "../../src/domain/SignedNote.ts"
import { formatTlogProof, parseTlogProof } from "../../src/domain/TlogProof.ts"
import { brokenInclusions } from "./BrokenProofs.ts"
import { type EntryLog, makeEntryLog, origin, right } from "./EntryLog.ts"

const size = 300
let log: EntryLog
beforeAll(async () => {
  log = await makeEntryLog(size)
})

const faultOf = async (
  document: unknown,
  keys: ReadonlyArray<NoteVerifier> = [log.key],
  options?: EntryProofOptions
): Promise<EntryProofFault> => {
  const verdict = await verifyEntryProof(document, keys, options)
  if (Result.isSuccess(verdict)) throw new Error("it was proved")
  return verdict.failure
}
const refuted = (step: string) => ({ verdict: "refuted", step })
const unknown = (step: string) => ({ verdict: "unknown", step })
/** The entry with columns changed, and the hash that it then has: a careful forger's. */
const rewritten = (index: number, change: Partial<AuditEntry>): EntryProofDocument => {
  const { entry, proof } = log.document(index)
  const forged = { ...entry, ...change }
  return { entry: { ...forged, hash: hex(entryHash(forged)) }, proof }
}

describe("a proof of an entry", () => {
  it("says what it proves: chain, lane, seq, time, origin, size and signer", async () => {
    const proved = right(await verifyEntryProof(log.document(17), [log.key]))
    expect(proved).toMatchObject({
      entry: { chain: "acme/geo/atlas", lane: 2, seq: "3", occurred_at: "2026-11-24T00:00:17.000017Z" },
      hash: log.entries[17]?.hash,
      index: 17,
      checkpoint: { origin, size },
      signers: [{ name: origin }],
      witnesses: []
    })
    const { hash: _, ...columns } = log.entries[17] ?? {}
    expect(proved.entry).toEqual(columns)
  })

  it("holds for every entry, and from its text", async () => {
    for (let index = 0; index < size; index += 13) {
      const text = JSON.stringify(log.document(index))
      const document = right(parseEntryProof(text))
      expect(document).toEqual(log.document(index))
      expect(right(await verifyEntryProof(document, [log.key])).index).toBe(index)
      expect(right(await verifyEntryProof(JSON.parse(text), [log.key])).index).toBe(index)
    }
  })

  it("needs no hash beside the columns", async () => {
    const { entry, proof } = log.document(5)
    const { hash: _, ...columns } = entry
    expect(Result.isSuccess(await verifyEntryProof({ entry: columns, proof }, [log.key]))).toBe(true)
  })

  it("of a log of one entry has no path", async () => {
    const small = await makeEntryLog(1)
    expect(right(await verifyEntryProof(small.document(0), [small.key])).checkpoint.size).toBe(1)
  })
})

describe("an entry that is not the one that was written", () => {
  const changes: ReadonlyArray<Partial<AuditEntry>> = [
    { chain: "acme/geo/atlas2" },
    { lane: 31 },
    { seq: "9007199254740993" },
    { occurred_at: "2026-11-24T00:00:02.000003Z" },
    { id: "01930000-0000-7000-9000-0000000000ff" },
    { actor: "development/zoe" },
    { action: "delete" },
    { outcome: "denied" },
    { schema_path: null },
    { schema_path: "acme/geo/atlas/country/v2" },
    { entity_id: null },
    { entity_id: "01930000-0000-7000-9000-0000000000ff" },
    { payload: null },
    { payload: '{"v": 1.1, "fields": ["name"]}' },
    { payload: '{"v":1.10,"fields":["name"]}' },
    { request_id: null },
    { request_id: "req-2" },
    { reason: null },
    { reason: " " },
    { ticket_ref: null },
    { ticket_ref: "" },
    { fail_modes: null },
    { fail_modes: "{}" },
    { db_login: "velocity_operator" },
    { db_role: "" },
    { prev_hash: "00".repeat(32) }
  ]

  it("is told by its hash when somebody was careless, by the tree when he was careful", async () => {
    const columns = new Set(changes.flatMap((change) => Object.keys(change)))
    const { hash: _, ...entry } = log.document(2).entry
    expect([...columns].sort()).toEqual(Object.keys(entry).sort())
    for (const change of changes) {
      const { entry: written, proof } = log.document(2)
      expect(await faultOf({ entry: { ...written, ...change }, proof })).toMatchObject(refuted("hash"))
      expect(await faultOf(rewritten(2, change))).toMatchObject(refuted("path"))
      const { hash: _hash, ...bare } = rewritten(2, change).entry
      expect(await faultOf({ entry: bare, proof })).toMatchObject(refuted("path"))
    }
  })

  it("is told when it stands elsewhere in the same log", async () => {
    for (const index of [0, 3, 258, 299]) {
      const document = { entry: log.document(2).entry, proof: log.proof(index) }
      expect(await faultOf(document)).toMatchObject(refuted("path"))
    }
  })

  it("is told with a path broken in any way", async () => {
    const { entry, proof } = log.document(2)
    const parsed = right(parseTlogProof(proof))
    const { root } = right(parseCheckpoint(log.body))
    const sound = { index: parsed.index, size, leaf: entryHash(entry), path: parsed.path, root }
    let tried = 0
    for (const { index, path, size: stated, leaf, root: head } of brokenInclusions(sound)) {
      // what is written in a text, and belongs to the path: the rest is the checkpoint's and the entry's
      if (stated !== size || leaf !== sound.leaf || head !== root) continue
      if (!Number.isSafeInteger(index) || index < 0 || path.some((hash) => hash.length !== 32)) continue
      tried += 1
      expect(await faultOf({ entry, proof: formatTlogProof({ ...parsed, index, path }) })).toMatchObject(
        refuted("path")
      )
    }
    expect(tried).toBeGreaterThan(50)
  })

  it("each character of the proof's text counts: never proved, whatever is put there", async () => {
    const { entry, proof } = log.document(2)
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: proof.length - 1 }),
        fc.constantFrom(..."aAzZ09+/=\n —x"),
        async (at, put) => {
          fc.pre(proof[at] !== put)
          const altered = proof.slice(0, at) + put + proof.slice(at + 1)
          expect(Result.isFailure(await verifyEntryProof({ entry, proof: altered }, [log.key]))).toBe(true)
        }
      ),
      { numRuns: 300 }
    )
  })
})

describe("a checkpoint that the log's key did not sign", () => {
  it("with another size, root or origin is refuted by its signature", async () => {
    const checkpoint = right(parseCheckpoint(log.body))
    for (const change of [{ size: size + 1 }, { root: checkpoint.root.toReversed() }, { origin: "other.example" }]) {
      const body = formatCheckpoint({ ...checkpoint, ...change })
      const forged = log.checkpoint.replace(log.body, body)
      expect(await faultOf(log.document(2, forged))).toMatchObject(refuted("signature"))
    }
  })

  it("from a log that was rewritten whole and signed by somebody else is nobody's word", async () => {
    const other = await makeEntryLog(size)
    expect(await faultOf(other.document(2))).toMatchObject({
      ...unknown("signer"),
      message: expect.stringMatching(
        /^No key that is known signed the note; velocity\.example\/audit\+[0-9a-f]{8} did\.$/u
      )
    })
    expect(await faultOf(log.document(2), [])).toMatchObject(unknown("signer"))
    // its own checkpoint over the other's entry
    expect(await faultOf({ ...other.document(4), entry: log.document(2).entry }, [other.key])).toMatchObject(
      refuted("path")
    )
  })

  it("is a note of something else", async () => {
    const note = await signNote("something else\n", log.signerKey)
    expect(await faultOf(log.document(2, note))).toMatchObject(unknown("proof"))
    expect(await faultOf(log.document(2, "no note"))).toMatchObject(unknown("proof"))
    expect(await faultOf({ ...log.document(2), proof: "no proof" })).toMatchObject(unknown("proof"))
  })

  it("while keys rotate: signed by both, by the old or by the new one, any trusted key will do", async () => {
    const newer = await generateSignerKey(origin)
    const newKey = right(parseVerifierKey(newer.verifierKey))
    const overlap = await signNote(log.body, log.signerKey, newer.signerKey)
    const after = await signNote(log.body, newer.signerKey)
    const signers = async (note: string, keys: ReadonlyArray<NoteVerifier>) =>
      right(await verifyEntryProof(log.document(2, note), keys)).signers.map((one) => hex(one.keyId))
    expect(await signers(overlap, [log.key])).toEqual([hex(log.key.keyId)])
    expect(await signers(overlap, [newKey])).toEqual([hex(newKey.keyId)])
    expect(await signers(overlap, [newKey, log.key])).toEqual([hex(log.key.keyId), hex(newKey.keyId)])
    expect(await signers(after, [log.key, newKey])).toEqual([hex(newKey.keyId)])
    expect(await faultOf(log.document(2, after))).toMatchObject(unknown("signer"))
  })
})

describe("witnesses", () => {
  it("that are named must all have cosigned this checkpoint", async () => {
    const made = await generateSignerKey("witness.example/w1", keyTypes.cosignature)
    const other = right(parseWitnessKey((await generateSignerKey("w2", keyTypes.cosignature)).verifierKey))
    const witness = right(parseWitnessKey(made.verifierKey))
    const signer = right(await parseSignerKey(made.signerKey, keyTypes.cosignature))
    const note = right(parseNote(log.checkpoint))
    const cosigned = withSignatures(note, [await cosign(log.body, signer, 1_790_000_000)])
    const proved = await verifyEntryProof(log.document(2, cosigned), [log.key], { witnesses: [witness] })
    expect(right(proved).witnesses).toMatchObject([{ witness: { name: "witness.example/w1" }, time: 1_790_000_000 }])
    expect(await faultOf(log.document(2), [log.key], { witnesses: [witness] })).toMatchObject(unknown("witness"))
    expect(await faultOf(log.document(2, cosigned), [log.key], { witnesses: [witness, other] })).toMatchObject({
      ...unknown("witness"),
      message: expect.stringContaining("The witness w2+")
    })
    const elsewhere = withSignatures(note, [await cosign(log.body.replace("300", "301"), signer, 1)])
    expect(await faultOf(log.document(2, elsewhere), [log.key], { witnesses: [witness] })).toMatchObject(
      refuted("witness")
    )
    // a witness's word is not the log's
    const alone = withSignatures({ body: log.body, signatures: [] }, [await cosign(log.body, signer, 1)])
    expect(await faultOf(log.document(2, alone), [log.key, witness], { witnesses: [witness] })).toMatchObject(
      unknown("signer")
    )
    expect(await faultOf(log.document(2, cosigned), [log.key], { witnesses: [log.key] })).toMatchObject(
      unknown("witness")
    )
  })
})

describe("a document that can be read in two ways, or not at all", () => {
  it.each([
    ["a lane that 16 bits would cut", { lane: 65_536 + 2 }],
    ["a lane that is a text", { lane: "2" }],
    ["a fraction of a lane", { lane: 2.5 }],
    ["a seq with leading zeros", { seq: "01" }],
    ["a seq beyond 63 bits", { seq: "18446744073709551617" }],
    ["a seq that is a number", { seq: 1 }],
    ["a day that there is not", { occurred_at: "2026-02-31T00:00:02.000002Z" }],
    ["a thirteenth month", { occurred_at: "2025-13-24T00:00:02.000002Z" }],
    ["an hour 24", { occurred_at: "2026-11-23T24:00:02.000002Z" }],
    ["a time in another zone's words", { occurred_at: "2026-11-24 00:00:02.000002+00" }],
    ["a time without its microseconds", { occurred_at: "2026-11-24T00:00:02Z" }],
    ["a UUID in capitals", { entity_id: "01930000-0000-7000-9000-0000000186A2" }],
    ["a UUID without hyphens", { id: "019300000000700090000000000000002" }],
    ["a UUID that is none", { id: "zz930000-0000-7000-9000-000000000002" }],
    ["half of a character", { actor: "development/\ud800" }],
    ["a payload that is an object", { payload: {} }],
    ["a hash in capitals", { hash: "AB".repeat(32) }],
    ["a prev_hash cut short", { prev_hash: "00" }],
    ["a member that is no column", { comment: "approved" }]
  ])("%s is no entry", async (_, change) => {
    const { entry, proof } = log.document(2)
    expect(await faultOf({ entry: { ...entry, ...change }, proof })).toMatchObject(unknown("entry"))
  })

  it("every column must be there", async () => {
    const { entry, proof } = log.document(1)
    const { hash: _, ...columns } = entry
    for (const name of Object.keys(columns)) {
      const rest = Object.fromEntries(Object.entries(columns).filter(([one]) => one !== name))
      expect(await faultOf({ entry: rest, proof })).toMatchObject({
        ...unknown("entry"),
        message: `The entry lacks its column ${name}.`
      })
      expect(await faultOf({ entry: { ...columns, [name]: undefined }, proof })).toMatchObject(unknown("entry"))
    }
  })

  it.each([null, undefined, 1, "text", [], {}, { proof: "" }, { entry: {} }, { entry: null, proof: "" }])(
    "%j is no document",
    async (document) => expect((await faultOf(document)).verdict).toBe("unknown")
  )

  it.each([
    ["no JSON", "{"],
    ["a member twice", '{"proof":"","proof":"","entry":{}}'],
    ["too deep", `${"[".repeat(40)}${"]".repeat(40)}`],
    ["an array", "[]"],
    ["empty", ""]
  ])("%s is no text of one", (_, text) => {
    expect(parseEntryProof(text)).toMatchObject({ failure: { verdict: "unknown" } })
    expect(parseEntry(text)).toMatchObject({ failure: { verdict: "unknown" } })
  })

  it("an entry's own text is read as strictly", () => {
    const { entry } = log.document(2)
    expect(right(parseEntry(JSON.stringify(entry)))).toEqual(entry)
    const twice = JSON.stringify(entry).replace("{", '{"actor":"somebody/else",')
    expect(parseEntry(twice)).toMatchObject({ failure: unknown("document") })
  })
})
