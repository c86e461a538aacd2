/** The bytes of an entry, as PostgreSQL's record_send wrote them; test/security/Audit.test.ts compares with a server. */
import { createHash } from "node:crypto"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type AuditEntry, entryBytes, entryHash, genesis } from "../../src/domain/AuditEntry.ts"
import { eventHash, eventHead, fieldLeaf, fieldSalt } from "../../src/domain/EventHash.ts"
import { hex, utf8 } from "../../src/domain/Sha256.ts"

const entry: AuditEntry = {
  chain: "a/b/c",
  lane: 7,
  seq: "9007199254740993",
  occurred_at: "2000-01-01T00:00:01.000002Z",
  id: "01930000-0000-7000-9000-000000000001",
  actor: "dev/é",
  action: "create",
  outcome: "ok",
  schema_path: null,
  entity_id: null,
  payload: '{"v": 1.10}',
  request_id: "",
  reason: null,
  ticket_ref: null,
  fail_modes: null,
  db_login: "velocity_api",
  db_role: "a_b_c_writer",
  prev_hash: "00".repeat(32)
}

const text = (value: string) => {
  const bytes = Buffer.from(value)
  return `00000019${bytes.length.toString(16).padStart(8, "0")}${bytes.toString("hex")}`
}
const nothing = (oid: string) => `${oid}ffffffff`

describe("the bytes of an entry", () => {
  it("are PostgreSQL's: count, then OID, length and value of each column, NULL as length -1", () => {
    expect(hex(entryBytes(entry))).toBe(
      [
        "00000012",
        text("a/b/c"),
        "00000015000000020007",
        "00000014000000080020000000000001",
        "000004a00000000800000000000f4242",
        "00000b8600000010019300000000700090000000000000 01".replace(" ", ""),
        text("dev/é"),
        text("create"),
        text("ok"),
        nothing("00000019"),
        nothing("00000b86"),
        `00000eda0000000c01${Buffer.from('{"v": 1.10}').toString("hex")}`,
        text(""),
        nothing("00000019"),
        nothing("00000019"),
        nothing("00000eda"),
        text("velocity_api"),
        text("a_b_c_writer"),
        `0000001100000020${"00".repeat(32)}`
      ].join("")
    )
  })

  it("differ when any column differs, and NULL is not ''", () => {
    const changed: ReadonlyArray<Partial<AuditEntry>> = [
      { chain: "a/b/d" },
      { lane: 8 },
      { seq: "9007199254740992" },
      { occurred_at: "2000-01-01T00:00:01.000003Z" },
      { id: "01930000-0000-7000-9000-000000000002" },
      { actor: "dev/e" },
      { action: "update" },
      { outcome: "denied" },
      { schema_path: "" },
      { entity_id: "01930000-0000-7000-9000-000000000001" },
      { payload: '{"v": 1.1}' },
      { payload: null },
      { request_id: null },
      { reason: "" },
      { ticket_ref: "" },
      { fail_modes: "[]" },
      { db_login: "velocity_operator" },
      { db_role: "" },
      { prev_hash: "01".repeat(32) },
      // the same text, cut elsewhere
      { action: "createo", outcome: "k" }
    ]
    const hashes = new Set(
      [entry, ...changed.map((change) => ({ ...entry, ...change }))].map((one) => hex(entryHash(one)))
    )
    expect(hashes.size).toBe(changed.length + 1)
  })

  it.each(["2000-01-01 00:00:01.000002+00", "2000-01-01T00:00:01.000002+00:00"])("%s is the same time", (occurred_at) =>
    expect(hex(entryHash({ ...entry, occurred_at }))).toBe(hex(entryHash(entry)))
  )

  it.each(["2000-01-01T00:00:01.000002", "2000-01-01T05:30:01+05:30", "yesterday"])(
    "%s is no time in UTC",
    (occurred_at) => expect(() => entryBytes({ ...entry, occurred_at })).toThrow(RangeError)
  )

  it("the hash is a leaf of RFC 6962, and a lane begins with its own name", () => {
    const sha = (...parts: ReadonlyArray<Uint8Array>) => createHash("sha256").update(Buffer.concat(parts)).digest("hex")
    expect(hex(entryHash(entry))).toBe(sha(Uint8Array.of(0), entryBytes(entry)))
    expect(hex(genesis("acme/geo/atlas", 31))).toBe(sha(utf8("velocity/audit/v1/acme/geo/atlas/31")))
  })
})

describe("the hash of an event", () => {
  const sha = (...parts: ReadonlyArray<Uint8Array | string>) =>
    createHash("sha256")
      .update(Buffer.concat(parts.map((part) => Buffer.from(part as string))))
      .digest()
  const salt = Buffer.alloc(16, 5)
  const head = eventHead(3, "01930000-0000-7000-9000-000000000001", 2, "update")
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/u), { maxLength: 8 })

  it("is what is written about it, in whatever order the fields come", () => {
    fc.assert(
      fc.property(names, fc.func(fc.json()), (fields, valueOf) => {
        const values = new Map(fields.map((name) => [name, valueOf(name)]))
        const leaves = [...values.keys()]
          .sort()
          .map((name) => sha("\u0000", sha(salt, name), name, "\u0000", values.get(name) as string))
        const expected = sha("\u0001", sha(head), ...leaves).toString("hex")
        expect(hex(eventHash(salt, head, values))).toBe(expected)
        expect(hex(eventHash(salt, head, new Map([...values].reverse())))).toBe(expected)
      })
    )
  })

  it("one field is proved by its own salt, without the event's", () => {
    expect(hex(fieldLeaf(fieldSalt(salt, "a"), "a", "1"))).toBe(
      sha("\u0000", sha(salt, "a"), "a", "\u0000", "1").toString("hex")
    )
  })
})
