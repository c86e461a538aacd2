/**
 * What only the tree can find (audit.md): a tail that was cut off, a lane or a whole log that is gone, a log rewritten with
 * every hash made anew, and the tree rewritten with it. Each is found, and by the check that is named for it.
 *
 * Changes are made as superuser with all guards out of the way, inside transactions that are undone. Beside each stands what
 * the verification of a window says of it, which sees no more than each lane's end of what the tree knows. All of it on a
 * log as it was written, on one with erasures in it, and on one whose first months were retired, one dropped and one kept.
 */
import { layer, type Vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect } from "vitest"
import { hex } from "../../src/domain/Sha256.ts"
import { sqlStateOf } from "../../src/postgres/DatabaseFailure.ts"
import type { KeptCheckpoint } from "../../src/postgres/Evidence.ts"
import { type Atlas, createCity, eraseCity, provisionAtlas } from "../support/Atlas.ts"
import { connect, Database, query, type TestDatabase, withDatabase } from "../support/Database.ts"
import { monthOf, retireMonths } from "../support/Months.ts"
import { hashed, regrow, relink, unguarded } from "../support/Rewriter.ts"
import { makeKeys, seal, writePlatform } from "../support/Sealing.ts"

/** A log as it was written, with erasures among its entries, or whose lanes began in months that were retired. */
type Kind = "plain" | "erased" | "retired"

/** A sealed log of two chains and several lanes, with a checkpoint of it outside, and a few entries since. */
class Sealed extends Context.Service<
  Sealed,
  TestDatabase & {
    readonly kind: Kind
    readonly atlas: Atlas
    readonly outside: KeptCheckpoint
    readonly lane: number
    readonly last: number
  }
>()("velocity/test/Sealed") {
  static readonly layerOf = (kind: Kind) =>
    Layer.effect(
      Sealed,
      Effect.gen(function* () {
        const database = yield* Database
        const keys = yield* makeKeys()
        if (kind === "retired") yield* retireMonths(database, `${database.org}/geo/atlas`, keys, ["drop", "keep"])
        const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
        for (let n = 0; n < 12; n++) {
          const { entity } = yield* createCity(database.apiUrl, atlas, `city ${n}`)
          if (kind !== "erased" || n % 3 > 0) continue
          yield* Effect.scoped(
            Effect.flatMap(connect(database.apiUrl), (connection) => eraseCity(connection, atlas, entity))
          )
        }
        yield* writePlatform(database.operatorUrl, 600)
        const outside = yield* Effect.promise(() => seal(database, keys))
        if (outside === undefined) throw new Error("nothing was sealed")
        yield* writePlatform(database.operatorUrl, 5)
        yield* Effect.promise(() => seal(database, keys))
        yield* query(database.operatorUrl, "select chain from platform.anomaly_read(now() - interval '1 hour', 100000)")
        const [row] = yield* query(
          database.superuserUrl,
          `select lane::int4 as lane, (max(seq + count) - 1)::int4 as last from platform.audit_leaves where chain = 'platform'
           group by lane order by sum(count) desc limit 1`
        )
        return { ...database, kind, atlas, outside, lane: Number(row?.lane), last: Number(row?.last) }
      }).pipe(Effect.orDie)
    )
}

const isSeal = ({ problem }: Readonly<Record<string, unknown>>) => problem === "seal_mismatch"

/**
 * Does something as superuser with every guard away and answers what log, tree and checkpoint then say, what of the seals, what the
 * window, and of which lanes the anomaly scanner says that their ends are gone; undone.
 */
const after = (attack: ReadonlyArray<string>, against?: Pick<KeptCheckpoint, "origin" | "size" | "root">) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { lane, outside, superuserUrl } = yield* Sealed
      const connection = yield* connect(superuserUrl)
      yield* connection.query("begin")
      for (const sql of [...unguarded, ...attack]) {
        yield* connection.query(sql.replaceAll("{lane}", `a.chain = 'platform' and a.lane = ${lane}`))
      }
      const { origin, root, size } = against ?? outside
      const tree = yield* connection.query(
        "select chain, lane::int4 as lane, seq::int4 as seq, problem, note from platform.audit_verify_tree($1, $2::int8, decode($3, 'hex'))",
        [origin, String(size), hex(root)]
      )
      const chain = yield* connection.query(
        "select seq::int4 as seq, problem from platform.audit_verify_window(null, null)"
      )
      const rewound = yield* connection.query("select lane::int4 as lane, problem from platform.anomaly_rewound()")
      yield* connection.query("rollback")
      return {
        tree: tree.rows
          .filter((row) => !isSeal(row))
          .map((row) => (row.chain === null ? `${row.problem}` : `${row.chain} ${row.lane} ${row.seq} ${row.problem}`)),
        seals: tree.rows.filter(isSeal).map(({ note }) => String(note)),
        chain: chain.rows.filter((row) => !isSeal(row)).map((row) => `${row.seq} ${row.problem}`),
        rewound: rewound.rows.map((row) => `${row.lane} ${row.problem}`)
      }
    })
  )

/** Everything that is to be found is found with erasures among the entries too, and when months were retired. */
const allLogs = (name: string, suite: (it: Vitest.MethodsNonLive<Sealed>) => void) => {
  for (const [kind, said] of [
    ["plain", ""],
    ["erased", " after erasures"],
    ["retired", " after retirements"]
  ] as const) {
    layer(withDatabase(Sealed.layerOf(kind)), { excludeTestServices: true })(`${name}${said}`, suite)
  }
}

allLogs("the tree", (it) => {
  it.effect("is sound as it was grown, against each checkpoint of it", () =>
    Effect.gen(function* () {
      expect(yield* after([])).toEqual({ tree: [], seals: [], chain: [], rewound: [] })
      const { superuserUrl } = yield* Sealed
      expect(yield* query(superuserUrl, "select * from platform.audit_verify_tree(null, null, null)")).toEqual([])
    })
  )

  it.effect("shows a tail that was cut off", () =>
    Effect.gen(function* () {
      const { lane, last } = yield* Sealed
      for (const cut of [1, 3, 200]) {
        expect(yield* after([`delete from platform.audit_log a where {lane} and seq > ${last - cut}`])).toEqual({
          tree: [`platform ${lane} ${last} tail_missing`],
          seals: [],
          chain: [`${last} tail_missing`],
          rewound: [`${lane} tail_missing`]
        })
      }
    })
  )

  it.effect("shows a lane, a chain and a whole log that are gone", () =>
    Effect.gen(function* () {
      const { atlas, lane, last, superuserUrl } = yield* Sealed
      expect(yield* after(["delete from platform.audit_log a where {lane}"])).toMatchObject({
        tree: [`platform ${lane} ${last} tail_missing`],
        chain: [`${last} tail_missing`],
        rewound: [`${lane} tail_missing`]
      })
      // of a lane that has had no entry since a month was retired there is none to miss
      const lanes = yield* query(
        superuserUrl,
        `select chain, lane::int4 as lane, (max(l.seq + l.count) - 1)::int4 as last from platform.audit_leaves l left join platform.audit_heads h using (chain, lane)
           group by chain, lane, h.seq having max(l.seq + l.count) - 1 > coalesce(h.seq, 0) order by 1, 2`
      )
      const missing = lanes.map((row) => `${row.chain} ${row.lane} ${row.last} tail_missing`)
      const ofAtlas = lanes.filter((row) => row.chain === atlas.chain)
      expect(yield* after([`delete from platform.audit_log where chain = '${atlas.chain}'`])).toEqual({
        tree: missing.filter((text) => text.startsWith(atlas.chain)),
        seals: [],
        chain: ofAtlas.map((row) => `${row.last} tail_missing`),
        rewound: ofAtlas.map((row) => `${row.lane} tail_missing`)
      })
      expect(yield* after(["delete from platform.audit_log"])).toMatchObject({
        tree: missing,
        chain: lanes.map((row) => `${row.last} tail_missing`),
        rewound: lanes.map((row) => `${row.lane} tail_missing`)
      })
    })
  )

  it.effect("shows an entry that is gone from the middle, where the chain was closed over it", () =>
    Effect.gen(function* () {
      const { lane, last } = yield* Sealed
      const at = last - 10
      const found = yield* after([`delete from platform.audit_log a where {lane} and seq = ${at}`])
      expect(found).toEqual({
        tree: [`platform ${lane} ${at} seq_gap`],
        seals: [],
        chain: [`${at + 1} seq_gap`],
        rewound: []
      })
      const closed = yield* after([
        `delete from platform.audit_log a where {lane} and seq = ${at}`,
        `update platform.audit_log a set seq = seq - 1 where {lane} and seq > ${at}`,
        relink("{lane}", at)
      ])
      expect(closed.chain).toEqual([`${last} tail_missing`])
      expect(closed.tree).toContain(`platform ${lane} ${last} tail_missing`)
      expect(closed.tree).toContain(`platform ${lane} ${at} rewritten`)
    })
  )

  it.effect("shows a rewriting with every hash made anew, from the entry on that was changed", () =>
    Effect.gen(function* () {
      const { lane, last } = yield* Sealed
      const at = last - 4
      expect(
        yield* after([
          `update platform.audit_log a set actor = 'dev/mallory' where {lane} and seq = ${at}`,
          relink("{lane}", at)
        ])
      ).toMatchObject({
        tree: [0, 1, 2, 3, 4].map((n) => `platform ${lane} ${at + n} rewritten`),
        seals: [],
        chain: []
      })
      const all = yield* after(["update platform.audit_log a set reason = 'as if'", relink("true", 1)])
      expect(all.chain).toEqual([])
      const { superuserUrl } = yield* Sealed
      const [{ entries } = {}] = yield* query(superuserUrl, "select count(*)::int4 as entries from platform.audit_log")
      expect(all.tree.length).toBe(entries)
      expect(all.tree.every((text) => text.endsWith(" rewritten"))).toBe(true)
    })
  )

  it.effect("shows a rewriting of log and tree, to whoever kept a checkpoint", () =>
    Effect.gen(function* () {
      const { kind, last } = yield* Sealed
      const rewritten = [
        `update platform.audit_log a set actor = 'dev/mallory' where {lane} and seq = ${last - 300}`,
        relink("{lane}", last - 300),
        ...regrow
      ]
      const cut = ["delete from platform.audit_log a where {lane} and seq > 100", ...regrow]
      const gone = ["delete from platform.audit_log", ...regrow]
      for (const [attack, problem] of [
        [rewritten, "rewritten"],
        [cut, "tail_missing"],
        [gone, "tail_missing"]
      ] as const) {
        const found = yield* after(attack)
        // the leaves of retired months cannot be made anew, since their entries are gone
        expect(found).toMatchObject({ tree: [kind === "retired" ? "tail_missing" : problem], chain: [] })
        expect(found.seals.length > 0).toBe(kind === "retired")
      }
      // what was written since the checkpoint was taken is not covered by it: audit.md, promise 3
      const { outside, superuserUrl } = yield* Sealed
      const [{ size } = {}] = yield* query(superuserUrl, "select platform.audit_tree_size()::int4 as size")
      expect(Number(size)).toBe(outside.size + 5)
    })
  )

  it.effect("shows a tree that does not agree with itself, and one that was swapped", () =>
    Effect.gen(function* () {
      const { outside } = yield* Sealed
      const forged = "overlay(hashes placing sha256('forged') from 33 for 32)"
      const leaf = yield* after([`update platform.audit_tiles set hashes = ${forged} where level = 0 and index = 0`])
      // in a full tile: the checkpoint is compared with the hash over it, which is as it was
      expect(leaf.tree.at(-1)).toBe("tree_broken")
      expect(leaf.tree.length + leaf.seals.length).toBe(2)
      const node = yield* after([`update platform.audit_tiles set hashes = ${forged} where level = 1`])
      expect(node.tree).toEqual(["tree_broken", "rewritten"])
      const run = yield* after(["update platform.audit_leaves set count = count + 1 where index = 0"])
      expect(run.tree).toContainEqual(expect.stringMatching(/ tree_broken$/u))
      const gone = yield* after(["delete from platform.audit_leaves where index = 0"])
      expect(gone.tree).toContainEqual(expect.stringMatching(/ tree_broken$/u))
      const other = { ...outside, root: outside.root.slice().reverse() }
      expect((yield* after([], other)).tree).toEqual(["rewritten"])
      expect((yield* after([], { ...outside, origin: "other.example" })).tree).toEqual([])
      expect((yield* after([], { ...other, origin: "other.example" })).tree).toEqual(["unknown_origin"])
    })
  )

  it.effect("shows heads and seals that were forged to excuse what is gone", () =>
    Effect.gen(function* () {
      const { lane, last, superuserUrl } = yield* Sealed
      const heads = (where: string) =>
        `insert into platform.audit_heads select distinct on (chain, lane) chain, lane, seq, occurred_at, hash from platform.audit_log a where ${where}
           order by chain, lane, seq desc on conflict (chain, lane) do update set seq = excluded.seq, occurred_at = excluded.occurred_at, hash = excluded.hash`
      expect(yield* after([heads("{lane}"), "delete from platform.audit_log a where {lane}"])).toMatchObject({
        tree: [`platform ${lane} ${last} tail_missing`, `platform ${lane} ${last} head_mismatch`],
        chain: [`${last} tail_missing`, `${last} head_mismatch`],
        rewound: [`${lane} tail_missing`]
      })
      const some = yield* after([
        heads(`{lane} and seq <= ${last - 50}`),
        `delete from platform.audit_log a where {lane} and seq <= ${last - 50}`
      ])
      expect(some.tree[0]).toBe(`platform ${lane} ${last - 50} head_mismatch`)
      expect(some.tree).toContain(`platform ${lane} ${last - 50} seq_gap`)
      expect(some.chain).toEqual([`${last - 49} head_mismatch`, `${last - 50} head_mismatch`])
      const [{ entries } = {}] = yield* query(
        superuserUrl,
        "select count(distinct (chain, lane))::int4 as entries from platform.audit_log"
      )
      const all = yield* after([heads("true"), "delete from platform.audit_log"])
      for (const problem of ["tail_missing", "head_mismatch"]) {
        expect(all.tree.filter((text) => text.endsWith(problem)).length, problem).toBe(entries)
      }
      // a month that never was, whose seals and head fit each other and the leaves
      const forged = [
        heads("{lane}"),
        `insert into platform.retirements (name, parent, "from", "to", entries, digest, sealed_at, seal_lane, seal_seq, disposition, retired_at)
           values ('audit_log_9999_01', 'audit_log', '-infinity', 'infinity', ${last}, '', now(), ${lane}, 1, 'drop', now())`,
        `insert into platform.audit_seals (partition, chain, lane, first_seq, first_hash, last_seq, last_hash, last_at, size)
           select 'audit_log_9999_01', a.chain, a.lane, a.seq, a.hash, b.seq, b.hash, b.occurred_at, 1 from platform.audit_log a
           join platform.audit_log b on b.chain = a.chain and b.lane = a.lane where {lane} and a.seq = 1 and b.seq = ${last}`,
        "update platform.retirements set digest = platform.seal_digest(name) where name = 'audit_log_9999_01'",
        "delete from platform.audit_log a where {lane}"
      ]
      expect((yield* after(forged)).seals).toEqual([
        "no sealed entry of the log says that audit_log_9999_01 was sealed so",
        "no entry of the log says that audit_log_9999_01 was retired so"
      ])
    })
  )

  it.effect("shows what was changed of seals, and of what became of a month", () =>
    Effect.gen(function* () {
      const database = yield* Sealed
      if (database.kind !== "retired") return
      const dropped = yield* monthOf(database, "audit_log", 3)
      const kept = yield* monthOf(database, "audit_log", 2)
      const seals = (set: string, month: string) =>
        `update platform.audit_seals set ${set} where partition = '${month}' and lane = 5`
      const digest = (month: string) =>
        `update platform.retirements set digest = platform.seal_digest(name) where name = '${month}'`
      const unlike = (month: string) => `the seals of ${month} are not what their digest is over`
      const unsealed = `no sealed entry of the log says that ${kept} was sealed so`
      const unretired = `no entry of the log says that ${kept} was retired so`
      for (const month of [dropped, kept]) {
        expect((yield* after([seals("last_seq = last_seq + 1", month)])).seals).toContain(unlike(month))
        expect((yield* after([seals("first_hash = sha256(first_hash)", month)])).seals).toEqual([
          unlike(month),
          `${month} was not sealed with this`
        ])
      }
      // a digest that was made to fit is not the one that the next month's is over, nor the newest one's entry says
      const older = [seals("last_hash = sha256(last_hash)", dropped), digest(dropped)]
      expect((yield* after(older)).seals).toContain(unlike(kept))
      expect((yield* after([...older, digest(kept)])).seals).toEqual(expect.arrayContaining([unsealed, unretired]))
      expect((yield* after([`delete from platform.audit_seals where partition = '${dropped}'`])).seals).toEqual([
        unlike(dropped)
      ])
      expect(
        (yield* after([`update platform.retirements set disposition = 'keep' where name = '${dropped}'`])).seals
      ).toContain(unlike(kept))
      expect(
        (yield* after([`update platform.retirements set disposition = 'drop' where name = '${kept}'`])).seals
      ).toEqual([unretired])
      // the entries that vouch, gone or changed with a hash that fits
      for (const action of ["operator.partition.seal", "operator.partition.retire"]) {
        const where = `a.action = '${action}' and a.payload ->> 'partition' = '${kept}'`
        const said = action.endsWith("seal") ? unsealed : unretired
        expect((yield* after([`delete from platform.audit_log a where ${where}`])).seals).toEqual([said])
        const edited = `update platform.audit_log a set payload = payload || '{"digest":""}' where ${where}`
        expect((yield* after([edited])).seals).toEqual([said])
        expect(
          (yield* after([edited, `update platform.audit_log a set hash = ${hashed} where ${where}`])).seals
        ).toEqual([said])
      }
    })
  )

  it.effect("shows what was changed of a month that was kept", () =>
    Effect.gen(function* () {
      const database = yield* Sealed
      if (database.kind !== "retired") return
      const { chain } = database.atlas
      const name = yield* monthOf(database, "audit_log", 2)
      const month = `platform_archive.${name}`
      const change = (...sql: ReadonlyArray<string>) => after([`alter table ${month} disable trigger all`, ...sql])
      const at = "where lane = 9 and seq = 3"
      for (const set of [
        "occurred_at = occurred_at + interval '1 microsecond'",
        "id = gen_random_uuid()",
        "actor = 'dev/mallory'",
        "payload = '{}'",
        "reason = ''",
        "prev_hash = sha256(prev_hash)",
        "hash = sha256(hash)"
      ]) {
        expect(yield* change(`update ${month} set ${set} ${at}`), set).toMatchObject({
          tree: [`${chain} 9 3 rewritten`],
          seals: [],
          chain: []
        })
      }
      const rehashed = yield* change(
        `update ${month} a set actor = 'dev/mallory' ${at}`,
        `update ${month} a set hash = ${hashed} ${at}`
      )
      expect(rehashed.tree).toEqual([`${chain} 9 3 rewritten`])
      expect(yield* change(`delete from ${month} ${at}`)).toMatchObject({
        tree: [`${chain} 9 3 seq_gap`],
        seals: [`${name} was kept with 64 entries, and has 63`]
      })
      expect((yield* change(`delete from ${month}`)).tree.length).toBe(64)
      const inserted = `insert into ${month} select chain, lane, seq + 900, occurred_at, id, actor, action, outcome, schema_path, entity_id, payload,
          request_id, reason, ticket_ref, fail_modes, db_login, db_role, prev_hash, hash from ${month} ${at}`
      expect((yield* change(inserted)).seals).toEqual([`${name} was kept with 64 entries, and has 65`])
      expect(yield* after([`drop table ${month}`])).toMatchObject({
        tree: [],
        seals: [`${name} was kept, and is gone`]
      })
    })
  )

  it.effect("is changed by nobody, its owner included, but by growing", () =>
    Effect.gen(function* () {
      const { superuserUrl } = yield* Sealed
      for (const [sql, state] of [
        ["update platform.audit_leaves set count = count + 1", "VL001"],
        ["delete from platform.audit_leaves", "VL001"],
        ["delete from platform.audit_tiles", "VL001"],
        ["update platform.audit_tiles set hashes = substr(hashes, 1, 32)", "VL001"],
        ["update platform.audit_tiles set hashes = sha256(hashes) || sha256('x')", "VL001"],
        ["update platform.audit_tiles set index = index + 7", "VL001"],
        ["delete from platform.audit_checkpoints", "VL001"],
        ["update platform.audit_checkpoints set note = 'x'", "VL001"],
        ["update platform.audit_checkpoints set size = size + 1", "VL001"],
        ["truncate platform.audit_leaves", "VL001"],
        ["truncate platform.audit_tiles", "VL001"],
        ["truncate platform.audit_checkpoints", "VL001"],
        ["truncate platform.audit_seals", "VL001"]
      ] as const) {
        // replication mode does not step over the guards either
        const error = yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connect(superuserUrl)
            yield* connection.query("set session_replication_role = replica")
            return yield* Effect.flip(connection.query(sql))
          })
        )
        expect([sql, sqlStateOf(error)]).toEqual([sql, state])
      }
    })
  )

  it.effect("is written by the sealer's functions alone, and they take no hash from anybody", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl } = yield* Sealed
      const state = (url: string, role: string, sql: string) =>
        Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connect(url)
            yield* connection.query("begin")
            yield* connection.query("select set_config('role', $1, true)", [role])
            return yield* Effect.match(connection.query(sql), {
              onFailure: (error) => sqlStateOf(error),
              onSuccess: () => "done"
            })
          })
        )
      const tables = ["audit_leaves", "audit_tiles", "audit_checkpoints", "audit_seals"]
      for (const [url, role] of [
        [operatorUrl, "none"],
        [operatorUrl, "velocity_sealer"],
        [apiUrl, "velocity_auditor"],
        [apiUrl, "velocity_gateway"],
        [apiUrl, "velocity_privacy"]
      ] as const) {
        for (const table of tables) {
          for (const sql of [
            `insert into platform.${table} select * from platform.${table}`,
            `delete from platform.${table}`,
            `truncate platform.${table}`,
            `alter table platform.${table} disable trigger all`
          ]) {
            expect([role, sql, yield* state(url, role, sql)]).toEqual([role, sql, "42501"])
          }
        }
        const seal = "select * from platform.audit_seal_append(platform.audit_tree_size(), 10, null, null)"
        expect([role, yield* state(url, role, seal)]).toEqual([role, role === "velocity_sealer" ? "done" : "42501"])
      }
      const sealer = (sql: string) => state(operatorUrl, "velocity_sealer", sql)
      expect(yield* sealer("select * from platform.audit_log limit 1")).toBe("42501")
      expect(yield* sealer("select * from platform.audit_seal_append(7, 10, null, null)")).toBe("VL040")
      expect(yield* sealer("select * from platform.audit_seal_append(platform.audit_tree_size(), 0, null, null)")).toBe(
        "VL012"
      )
      const add = (epoch: number, size: string, origin: string, root: string, note: string) =>
        sealer(`select platform.audit_checkpoint_add(${epoch}, ${size}, '${origin}', ${root}, ${note})`)
      const size = "platform.audit_tree_size()"
      const root = "platform.audit_tree_root()"
      const note = (origin: string, more = "") =>
        `format(E'${origin}\\n%s\\n%s\\n${more}\\n— x y\\n', ${size}, encode(${root}, 'base64'))`
      expect(yield* add(1, `${size} - 1`, "log.example/velocity", root, note("log.example/velocity"))).toBe("VL040")
      expect(yield* add(1, size, "log.example/velocity", "sha256('x')", note("log.example/velocity"))).toBe("VL040")
      expect(yield* add(1, size, "log.example/velocity", root, "'another note'")).toBe("VL012")
      expect(yield* add(2, size, "log.example/velocity/2", root, note("log.example/velocity/2"))).toBe("VL042")
      const restored = "restored log.example/velocity 900 x why\\n"
      expect(yield* add(2, size, "log.example/velocity", root, note("log.example/velocity", restored))).toBe("VL042")
      expect(yield* add(2, size, "log.example/velocity/2", root, note("log.example/velocity/2", restored))).toBe("done")
      expect(yield* add(1, size, "log.example/velocity", root, note("log.example/velocity"))).toBe("done")
    })
  )
})
