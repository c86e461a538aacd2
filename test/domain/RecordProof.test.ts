/** The proof of a record: proved with whatever of it is shown, and refuted with anything in it changed. */
import { Result } from "effect"
import fc from "fast-check"
import { beforeAll, describe, expect, it } from "vitest"
import { type AuditEntry, entryHash, genesis } from "../../src/domain/AuditEntry.ts"
import type { ExportedEntry } from "../../src/domain/EntryProof.ts"
import { eventHash, eventHead, fieldLeaf, fieldSalt } from "../../src/domain/EventHash.ts"
import { leafHash, rootHash } from "../../src/domain/MerkleTree.ts"
import {
  type HiddenField,
  isRecordProof,
  parseRecordProof,
  type RecordProofDocument,
  type RecordProofFault,
  type ShownField,
  verifyRecordProof
} from "../../src/domain/RecordProof.ts"
import { hex, sha256, utf8 } from "../../src/domain/Sha256.ts"
import { appendToTiles } from "../../src/domain/Tiles.ts"
import { inclusionProof } from "../../src/domain/TreeProof.ts"
import { type EntryLog, right, seal } from "./EntryLog.ts"

const chain = "acme/geo/atlas"
const path = `${chain}/city/v1`
const idOf = (n: number) => `01930000-0000-7000-9000-${n.toString(16).padStart(12, "0")}`
const values = new Map([
  ["id", `"${idOf(7)}"`],
  ["version", "3"],
  ["name", '"Łódź"'],
  ["secret", '"hush"'],
  ["area", "293.20"],
  ["note", "null"]
])
const salt = sha256(utf8("salt"))
const storage = 12

const fieldsOf = (of: ReadonlyMap<string, string>, salted: Uint8Array, hidden: ReadonlySet<string>) =>
  [...of.keys()].sort().map((name): ShownField | HiddenField => {
    const own = fieldSalt(salted, name)
    const value = of.get(name) ?? ""
    return hidden.has(name) ? { leaf: hex(fieldLeaf(own, name, value)) } : { name, value, salt: hex(own) }
  })

const hashes = {
  single: eventHash(salt, eventHead(storage, idOf(7), 3, "update"), values),
  batch: Array.from({ length: 437 }, (_, n) =>
    eventHash(salt, eventHead(storage, idOf(100 + n), 1, "create"), new Map([["id", `"${idOf(100 + n)}"`]]))
  )
}

const entriesOf = (): ReadonlyArray<ExportedEntry> => {
  const shared = {
    chain,
    lane: 4,
    actor: "development/zoë",
    outcome: "ok",
    schema_path: path,
    request_id: "r",
    reason: null
  }
  const more = { ticket_ref: null, fail_modes: null, db_login: "velocity_api", db_role: "acme_geo_atlas_writer" }
  const wanted: ReadonlyArray<Pick<AuditEntry, "action" | "entity_id" | "payload">> = [
    { action: "create", entity_id: idOf(1), payload: '{"n": 1}' },
    {
      action: "update",
      entity_id: idOf(7),
      payload: `{"hash": "${hex(hashes.single)}", "event": "${idOf(9)}", "fields": ["name"], "version": 3}`
    },
    {
      action: "create",
      entity_id: null,
      payload: `{"root": "${hex(rootHash(hashes.batch.map(leafHash)))}", "count": 437, "last_id": "${idOf(536)}", "first_id": "${idOf(100)}"}`
    }
  ]
  let last = hex(genesis(chain, 4))
  return wanted.map((one, n) => {
    const entry = {
      ...shared,
      ...one,
      ...more,
      seq: String(n + 1),
      id: idOf(50 + n),
      occurred_at: `2026-11-24T00:00:0${n}.000000Z`,
      prev_hash: last
    }
    last = hex(entryHash(entry))
    return { ...entry, hash: last }
  })
}

let log: EntryLog
beforeAll(async () => {
  log = await seal(entriesOf())
})

const single = (hidden: ReadonlyArray<string> = ["secret"]): RecordProofDocument => ({
  record: { path, storage_id: storage, entity_id: idOf(7), version: 3, op: "update" },
  fields: fieldsOf(values, salt, new Set(hidden)),
  ...log.document(1)
})
const many = (index: number): RecordProofDocument => {
  const { tiles } = appendToTiles(0, hashes.batch.map(leafHash), () => undefined)
  const source = (level: number, at: number) => tiles.find((tile) => tile.level === level && tile.index === at)?.hashes
  return {
    record: { path, storage_id: storage, entity_id: idOf(100 + index), version: 1, op: "create" },
    fields: fieldsOf(new Map([["id", `"${idOf(100 + index)}"`]]), salt, new Set()),
    batch: { index, size: 437, path: inclusionProof(index, 437, source).map(hex) },
    ...log.document(2)
  }
}
const faultOf = async (document: unknown): Promise<RecordProofFault> => {
  const verdict = await verifyRecordProof(document, [log.key])
  if (Result.isSuccess(verdict)) throw new Error(`it was proved: ${JSON.stringify(document)}`)
  return verdict.failure
}

describe("a proof of a record", () => {
  it("holds with any of its fields hidden, and shows the others", async () => {
    await fc.assert(
      fc.asyncProperty(fc.subarray([...values.keys()]), async (hidden) => {
        const proved = right(await verifyRecordProof(single(hidden), [log.key]))
        const shown = [...values].filter(([name]) => !hidden.includes(name)).sort(([a], [b]) => (a < b ? -1 : 1))
        expect([...proved.values]).toEqual(shown)
        expect([proved.hidden, proved.event]).toEqual([hidden.length, hex(hashes.single)])
        expect(proved.entry.entry.id).toBe(idOf(51))
      }),
      { numRuns: 30 }
    )
  })

  it("is the same from its text, and known for what it is", async () => {
    const read = right(parseRecordProof(JSON.stringify(single())))
    expect([isRecordProof(read), isRecordProof(log.document(1)), isRecordProof([])]).toEqual([true, false, false])
    expect(right(await verifyRecordProof(read, [log.key])).record.version).toBe(3)
    expect(Result.isFailure(parseRecordProof('{"record":1,"record":2}'))).toBe(true)
  })

  it("holds for each of many that one entry is of", async () => {
    for (const index of [0, 1, 255, 256, 435, 436]) {
      const proved = right(await verifyRecordProof(many(index), [log.key]))
      expect(proved.record.entity_id).toBe(idOf(100 + index))
    }
  })

  it("says nothing of what is hidden", () => {
    expect(JSON.stringify(single())).not.toContain("secret")
    expect(JSON.stringify(single())).not.toContain("hush")
    expect(JSON.stringify(single())).not.toContain(hex(salt))
    expect(JSON.stringify(single())).not.toContain(hex(fieldSalt(salt, "secret")))
  })
})

describe("a document in which anything was changed", () => {
  const other = (text: string) => (text.startsWith("0") ? `1${text.slice(1)}` : `0${text.slice(1)}`)

  it("is refuted for what it shows or hides", async () => {
    const document = single()
    for (const [at, field] of document.fields.entries()) {
      const changes: ReadonlyArray<unknown> =
        "leaf" in field
          ? [{ leaf: other(field.leaf) }]
          : [
              { ...field, value: `${field.value} ` },
              { ...field, salt: other(field.salt) },
              { ...field, value: "true" },
              { leaf: other(field.salt) }
            ]
      for (const change of changes) {
        const fields = document.fields.with(at, change as ShownField)
        expect(await faultOf({ ...document, fields })).toMatchObject({ step: "commitment", verdict: "refuted" })
      }
      const fields = document.fields.filter((_, n) => n !== at)
      expect(await faultOf({ ...document, fields })).toMatchObject({ step: "commitment", verdict: "refuted" })
    }
    const fields = [...document.fields, { leaf: hex(salt) }]
    expect(await faultOf({ ...document, fields })).toMatchObject({ step: "commitment", verdict: "refuted" })
  })

  it("is refuted for what it says of the record", async () => {
    const document = single()
    const { record } = document
    for (const change of [
      { path: `${chain}/country/v1` },
      { path: "acme/geo" },
      { storage_id: 13 },
      { entity_id: idOf(8) },
      { version: 2 },
      { op: "create" }
    ]) {
      const fault = await faultOf({ ...document, record: { ...record, ...change } })
      expect([change, fault.step, fault.verdict]).toEqual([change, "commitment", "refuted"])
    }
  })

  it("is refuted beside another entry, and with another path in it", async () => {
    for (const index of [0, 2]) {
      expect(await faultOf({ ...single(), ...log.document(index) })).toMatchObject({ step: "commitment" })
    }
    for (const index of [0, 1]) {
      expect(await faultOf({ ...many(3), ...log.document(index) })).toMatchObject({ step: "commitment" })
    }
    const document = many(3)
    const { batch } = document
    if (batch === undefined) throw new Error("no path")
    for (const change of [
      { index: 4 },
      { size: 436 },
      { index: 436 },
      { path: batch.path.slice(1) },
      { path: [...batch.path, hex(salt)] },
      { path: batch.path.with(2, other(String(batch.path[2]))) }
    ]) {
      const fault = await faultOf({ ...document, batch: { ...batch, ...change } })
      expect([change, fault.step, fault.verdict]).toEqual([change, "commitment", "refuted"])
    }
    const { batch: _, ...alone } = document
    expect(await faultOf(alone)).toMatchObject({ step: "commitment", verdict: "refuted" })
    expect(await faultOf({ ...single(), batch })).toMatchObject({ step: "commitment", verdict: "refuted" })
  })

  it("is refuted as its entry is", async () => {
    const document = single()
    const entry = { ...(document.entry as ExportedEntry), actor: "mallory" }
    expect(await faultOf({ ...document, entry })).toMatchObject({ step: "hash", verdict: "refuted" })
    const forged = { ...entry, hash: hex(entryHash(entry)) }
    expect(await faultOf({ ...document, entry: forged })).toMatchObject({ step: "path", verdict: "refuted" })
    const elsewhere = await seal(entriesOf())
    expect(await faultOf({ ...document, proof: elsewhere.proof(1) })).toMatchObject({
      step: "signer",
      verdict: "unknown"
    })
  })

  it("is not believed in another form", async () => {
    const document = single()
    const [field] = document.fields as [ShownField]
    const { proof: _, ...unproved } = document
    for (const wrong of [
      null,
      [],
      "proof",
      unproved,
      { ...document, more: 1 },
      { ...document, record: { ...document.record, more: 1 } },
      { ...document, record: { ...document.record, version: "3" } },
      { ...document, record: { ...document.record, version: 0 } },
      { ...document, fields: {} },
      { ...document, fields: [...document.fields].reverse() },
      { ...document, fields: [field, ...document.fields] },
      { ...document, fields: document.fields.with(0, { ...field, leaf: hex(salt) } as ShownField) },
      { ...document, fields: document.fields.with(0, { ...field, name: "a\u0000b" }) },
      { ...document, fields: document.fields.with(0, { ...field, salt: "00" }) },
      { ...document, fields: document.fields.with(0, { leaf: hex(salt).toUpperCase() }) },
      { ...many(1), batch: { index: 0, size: 501, path: [] } },
      { ...many(1), batch: {} }
    ]) {
      expect((await faultOf(wrong)).verdict, JSON.stringify(wrong)).toBe("unknown")
    }
  })
})
