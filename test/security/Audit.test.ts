/**
 * The audit log against those who would change it: every kind of change that audit.md names is found, and by the check
 * that is named for it; writers in numbers leave no gap and no fork.
 *
 * Changes are made as superuser with the log's triggers out of the way, since nobody else could make them at all, inside
 * transactions that are undone. What only the tree knows of (a cut tail, a whole lane, a rewrite of everything) is in Evidence.test.ts.
 */
import { layer, type Vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect } from "vitest"
import { type AuditEntry, entryHash, genesis } from "../../src/domain/AuditEntry.ts"
import { eventHash } from "../../src/domain/EventHash.ts"
import { leafHash, rootHash } from "../../src/domain/MerkleTree.ts"
import { sha256, utf8 } from "../../src/domain/Sha256.ts"
import { sqlStateOf } from "../../src/postgres/DatabaseFailure.ts"
import { type Atlas, createCity, eraseCity, provisionAtlas } from "../support/Atlas.ts"
import { connect, Database, query, type TestDatabase } from "../support/Database.ts"
import { retiredEntries, retireMonths } from "../support/Months.ts"
import { hashed, relink } from "../support/Rewriter.ts"
import { makeKeys } from "../support/Sealing.ts"

const insertSql = (chain: string) =>
  `select platform.audit_insert('${chain}', 'dev/alice', 'create', 'ok', '${chain}/city/v1', gen_random_uuid(), '{"fields":["name"],"n":1.10}', '{"f":null}', 'r-é', 'why', 'T-1')::text as id`

/** Entries in transactions of their own, over one connection: one backend, so one lane. */
const writeEntries = (
  apiUrl: string,
  atlas: Atlas,
  count: number,
  settings: ReadonlyArray<string> = [],
  erased: ReadonlyArray<{ readonly entity: string }> = []
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(apiUrl)
      for (const setting of settings) yield* connection.query(setting)
      for (let i = 0; i < count; i++) {
        yield* connection.query("begin")
        yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_writer`])
        yield* connection.query(insertSql(atlas.chain))
        yield* connection.query("commit")
        const city = erased[i]
        if (city === undefined) continue
        yield* eraseCity(connection, atlas, city.entity)
      }
    })
  )

/** A log as it was written, with erasures among its entries, or whose lanes began in a month that was retired. */
type Kind = "plain" | "erased" | "retired"

/** A lane with eight entries or more, whose middle is `at`: three before it and three behind it at least. */
class Log extends Context.Service<
  Log,
  TestDatabase & {
    readonly kind: Kind
    readonly atlas: Atlas
    readonly lane: number
    readonly at: number
    readonly last: number
  }
>()("velocity/test/Log") {
  static readonly layerOf = (kind: Kind) =>
    Layer.effect(
      Log,
      Effect.gen(function* () {
        const database = yield* Database
        if (kind === "retired") yield* retireMonths(database, `${database.org}/geo/atlas`, yield* makeKeys(), ["drop"])
        const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
        const cities = kind === "erased" ? ["Oslo", "Lima", "Bern", "Riga", "Kiel"] : []
        yield* writeEntries(
          database.apiUrl,
          atlas,
          8,
          [],
          yield* Effect.forEach(cities, (city) => createCity(database.apiUrl, atlas, city))
        )
        const [row] = yield* query(
          database.superuserUrl,
          "select lane::int4 as lane, max(seq)::int4 as last from platform.audit_log where chain = $1 and action = 'create' group by lane order by last desc limit 1",
          [atlas.chain]
        )
        const last = Number(row?.last)
        return { ...database, kind, atlas, lane: Number(row?.lane), at: last - 4, last }
      }).pipe(Effect.orDie)
    ).pipe(Layer.provide(Database.layer))
}

/** Runs SQL as superuser with the log unguarded, in a transaction that is undone; answers what verification finds. */
const found = (sql: ReadonlyArray<string>, window = "null, null") =>
  Effect.scoped(
    Effect.gen(function* () {
      const { superuserUrl, atlas, lane } = yield* Log
      const connection = yield* connect(superuserUrl)
      yield* connection.query("begin")
      yield* connection.query("set local session_replication_role = replica")
      yield* connection.query("alter table platform.audit_log disable trigger all")
      for (const one of sql) {
        yield* connection.query(one.replaceAll("{lane}", `a.chain = '${atlas.chain}' and a.lane = ${lane}`))
      }
      const rows = yield* connection.query(
        `select seq::int4 as seq, problem from platform.audit_verify_window(${window}) a order by chain, lane, seq, problem`
      )
      yield* connection.query("rollback")
      return rows.rows.map((row) => `${row.seq} ${row.problem}`)
    })
  )

/** What a forger does who knows how entries are hashed. */
const rehash = (where: string) => `update platform.audit_log a set hash = ${hashed} where {lane} and ${where}`

/** A change of each column to another value; a column without one fails its test. */
const changes: Readonly<Record<string, string>> = {
  chain: "'platform'",
  lane: "(lane + 1) % 32",
  seq: "seq + 1000",
  occurred_at: "occurred_at + interval '1 microsecond'",
  id: "gen_random_uuid()",
  actor: "'dev/mallory'",
  action: "'delete'",
  outcome: "'denied'",
  schema_path: "null",
  entity_id: "gen_random_uuid()",
  payload: `'{"fields":["name"],"n":1.1}'`,
  request_id: "request_id || ' '",
  reason: "''",
  ticket_ref: "null",
  fail_modes: "null",
  db_login: "'velocity_operator'",
  db_role: "'none'",
  prev_hash: "sha256(prev_hash)",
  hash: "sha256(hash)"
}

const stateOf = (effect: Effect.Effect<unknown, Parameters<typeof sqlStateOf>[0]>) =>
  Effect.map(Effect.flip(effect), sqlStateOf)

/** Everything that is to be found is found with erasures among the entries too, and when a month was retired. */
const allLogs = (name: string, suite: (it: Vitest.MethodsNonLive<Log>) => void) => {
  layer(Log.layerOf("plain"), { excludeTestServices: true })(name, suite)
  layer(Log.layerOf("erased"), { excludeTestServices: true })(`${name} after erasures`, suite)
  layer(Log.layerOf("retired"), { excludeTestServices: true })(`${name} after a retirement`, suite)
}

allLogs("the audit log", (it) => {
  it.effect("is sound as it was written", () =>
    Effect.gen(function* () {
      expect(yield* found([])).toEqual([])
    })
  )

  it.effect("shows a change of any column", () =>
    Effect.gen(function* () {
      const { superuserUrl, at } = yield* Log
      const columns = yield* query(
        superuserUrl,
        "select attname::text as name from pg_attribute where attrelid = 'platform.audit_log'::regclass and attnum > 0 and not attisdropped order by attnum"
      )
      expect(columns.map((row) => row.name)).toEqual(Object.keys(changes))
      for (const [column, value] of Object.entries(changes)) {
        const problems = yield* found([
          `update platform.audit_log a set ${column} = ${value} where {lane} and seq = ${at}`
        ])
        const there = column === "seq" ? at + 1000 : at
        expect(problems, column).toContain(`${there} hash_mismatch`)
        // where the entry was there is now a gap
        if (["chain", "lane", "seq"].includes(column)) expect(problems, column).toContain(`${at + 1} seq_gap`)
        else
          expect(problems.slice(1), column).toEqual(
            column.endsWith("hash") && column === "hash" ? [`${at + 1} link_broken`] : []
          )
      }
    })
  )

  it.effect("shows a change of any column of an erasure's entry, and of none by what was erased", () =>
    Effect.gen(function* () {
      const { superuserUrl, atlas, lane } = yield* Log
      const erasures = yield* query(
        superuserUrl,
        "select seq::int4 as seq from platform.audit_log where chain = $1 and lane = $2 and action = 'erase'",
        [atlas.chain, lane]
      )
      for (const { seq } of erasures) {
        for (const [column, value] of Object.entries({ ...changes, fail_modes: "'{}'" })) {
          const problems = yield* found([
            `update platform.audit_log a set ${column} = ${value} where {lane} and seq = ${seq}`
          ])
          expect(problems, column).toContain(`${column === "seq" ? Number(seq) + 1000 : seq} hash_mismatch`)
        }
      }
      const contents = yield* query(
        superuserUrl,
        `select count(*)::int4 as erased, count(e.state)::int4 + count(e.salt)::int4 as left,
           coalesce(bool_and(encode(e.hash, 'hex') = (select a.payload ->> 'hash' from platform.audit_log a where a.entity_id = e.entity_id and a.action = 'create')), true) as proved
         from platform.event_log e where exists (select from platform.audit_log a where a.entity_id = e.entity_id and a.action = 'erase')`
      )
      expect(contents).toEqual([{ erased: erasures.length, left: 0, proved: true }])
    })
  )

  it.effect("shows a change whose hash was recomputed, at the entry behind it", () =>
    Effect.gen(function* () {
      const { at } = yield* Log
      for (const [column, value] of Object.entries(changes)) {
        if (["chain", "lane", "seq", "hash", "prev_hash"].includes(column)) continue
        const problems = yield* found([
          `update platform.audit_log a set ${column} = ${value} where {lane} and seq = ${at}`,
          rehash(`seq = ${at}`)
        ])
        expect(problems, column).toEqual([`${at + 1} link_broken`])
      }
      const relinked = yield* found([
        `update platform.audit_log a set prev_hash = sha256(prev_hash) where {lane} and seq = ${at}`,
        rehash(`seq = ${at}`)
      ])
      expect(relinked).toEqual([`${at} link_broken`, `${at + 1} link_broken`])
    })
  )

  it.effect("shows deletions in the middle, and of a lane's beginning", () =>
    Effect.gen(function* () {
      const { at, kind, last } = yield* Log
      expect(yield* found([`delete from platform.audit_log a where {lane} and seq = ${at}`])).toEqual([
        `${at + 1} seq_gap`
      ])
      expect(
        yield* found([`delete from platform.audit_log a where {lane} and seq in (${at - 2}, ${at}, ${at + 1})`])
      ).toEqual([`${at - 1} seq_gap`, `${at + 2} seq_gap`])
      expect(yield* found([`delete from platform.audit_log a where {lane} and seq < ${last}`])).toEqual([
        `${last} ${kind === "retired" ? "head_mismatch" : "seq_gap"}`
      ])
      // closed up again by renumbering what is behind
      expect(
        yield* found([
          `delete from platform.audit_log a where {lane} and seq = ${at}`,
          `update platform.audit_log a set seq = seq - 1 where {lane} and seq > ${at}`
        ])
      ).toContain(`${at} hash_mismatch`)
      expect(
        yield* found([
          `delete from platform.audit_log a where {lane} and seq = ${at}`,
          `update platform.audit_log a set seq = seq - 1 where {lane} and seq > ${at}`,
          rehash(`seq >= ${at}`)
        ])
      ).toContain(`${at} link_broken`)
    })
  )

  it.effect("shows two entries that were swapped", () =>
    Effect.gen(function* () {
      const { at } = yield* Log
      const swap = `update platform.audit_log a set seq = case seq when ${at} then ${at + 1} else ${at} end where {lane} and seq in (${at}, ${at + 1})`
      expect(yield* found([swap])).toEqual([`${at} hash_mismatch`, `${at + 1} hash_mismatch`, `${at + 2} link_broken`])
      const problems = yield* found([swap, rehash(`seq in (${at}, ${at + 1})`)])
      expect(problems).toEqual([`${at} link_broken`, `${at + 1} link_broken`, `${at + 2} link_broken`])
    })
  )

  it.effect("shows an entry that was inserted or doubled", () =>
    Effect.gen(function* () {
      const { at } = yield* Log
      const copy = (seq: string, time: string) =>
        `insert into platform.audit_log select chain, lane, ${seq}, ${time}, gen_random_uuid(), actor, action, outcome, schema_path, entity_id, payload,
         request_id, reason, ticket_ref, fail_modes, db_login, db_role, prev_hash, hash from platform.audit_log a where {lane} and seq = ${at}`
      expect(yield* found([copy("seq", "occurred_at + interval '1 microsecond'")])).toContain(`${at} duplicate_seq`)
      expect(yield* found([copy("seq", "occurred_at + interval '1 microsecond'"), rehash(`seq = ${at}`)])).toContain(
        `${at} duplicate_seq`
      )
      // in another month the primary key does not see it either
      expect(yield* found([copy("seq", "occurred_at + interval '1 month'"), rehash(`seq = ${at}`)])).toContain(
        `${at} duplicate_seq`
      )
      const between = yield* found([
        `update platform.audit_log a set seq = seq + 1 where {lane} and seq > ${at}`,
        copy("seq + 1", "occurred_at + interval '1 microsecond'"),
        rehash(`seq > ${at}`)
      ])
      expect(between).toContain(`${at + 1} link_broken`)
    })
  )

  it.effect("shows a time that was moved before its predecessor's, with all hashes made anew", () =>
    Effect.gen(function* () {
      const { at } = yield* Log
      const problems = yield* found([
        `update platform.audit_log a set occurred_at = (select occurred_at from platform.audit_log a where {lane} and seq = ${at - 2}) where {lane} and seq = ${at}`,
        relink("{lane}", at)
      ])
      expect(problems).toEqual([`${at} time_reversed`])
    })
  )

  it.effect("goes on from the head of what was dropped, and shows a head that does not fit", () =>
    Effect.gen(function* () {
      const { at, kind } = yield* Log
      const drop = (columns: string) => [
        `delete from platform.audit_heads a where {lane}`,
        `insert into platform.audit_heads select ${columns} from platform.audit_log a where {lane} and seq = ${at}`,
        `delete from platform.audit_log a where {lane} and seq <= ${at}`
      ]
      const misfit = [`${at + 1} head_mismatch`]
      // a head that no seal says excuses nothing, whatever it is: it is told itself, and what is behind it
      expect(yield* found(drop("chain, lane, seq, occurred_at, hash"))).toEqual([`${at} head_mismatch`, ...misfit])
      expect(yield* found(drop("chain, lane, seq, occurred_at, sha256(hash)"))).toEqual([
        `${at} head_mismatch`,
        ...misfit
      ])
      expect(yield* found(drop("chain, lane, seq - 1, occurred_at, hash"))).toEqual([
        `${at - 1} head_mismatch`,
        ...misfit
      ])
      expect(yield* found(drop("chain, lane, seq, occurred_at + interval '1 day', hash"))).toEqual([
        `${at} head_mismatch`,
        ...misfit
      ])
      expect(yield* found([`delete from platform.audit_log a where {lane} and seq <= ${at}`])).toEqual(
        kind === "retired" ? misfit : [`${at + 1} seq_gap`]
      )
      if (kind !== "retired") return
      const first = retiredEntries + 1
      expect(yield* found(["delete from platform.audit_heads a where {lane}"])).toEqual([
        `${retiredEntries} head_mismatch`,
        `${first} seq_gap`
      ])
      for (const [change, head] of [
        ["seq = seq - 1", retiredEntries - 1],
        ["hash = sha256(hash)", retiredEntries],
        ["occurred_at = now() + interval '1 day'", retiredEntries]
      ] as const) {
        expect(yield* found([`update platform.audit_heads a set ${change} where {lane}`]), change).toEqual([
          `${head} head_mismatch`,
          `${first} head_mismatch`
        ])
      }
      // a lane that is begun anew, with hashes that fit, is not where the seal of the retired month says it goes on
      const anew = yield* found([
        "delete from platform.audit_heads a where {lane}",
        `update platform.audit_log a set seq = seq - ${retiredEntries} where {lane}`,
        `update platform.audit_log a set prev_hash = sha256(convert_to(format('velocity/audit/v1/%s/%s', a.chain, a.lane), 'UTF8')) where {lane} and seq = 1`,
        relink("{lane}", 1)
      ])
      expect(anew).toEqual([`${retiredEntries} head_mismatch`])
    })
  )

  it.effect("is verified in windows, the first entry against what is before the window", () =>
    Effect.gen(function* () {
      const { superuserUrl, atlas, lane, at } = yield* Log
      const [row] = yield* query(
        superuserUrl,
        "select occurred_at::text as at from platform.audit_log where chain = $1 and lane = $2 and seq = $3",
        [atlas.chain, lane, at]
      )
      const from = `'${row?.at}', null`
      const until = `null, '${row?.at}'`
      expect(yield* found([], from)).toEqual([])
      expect(yield* found([], until)).toEqual([])
      expect(yield* found([], "now() - interval '2 years', now() - interval '1 year'")).toEqual([])
      const before = [`update platform.audit_log a set actor = 'x' where {lane} and seq = ${at - 1}`]
      expect(yield* found(before, from)).toEqual([])
      expect(yield* found([...before, rehash(`seq = ${at - 1}`)], from)).toEqual([`${at} link_broken`])
      expect(yield* found(before, until)).toEqual([`${at - 1} hash_mismatch`])
      expect(yield* found([`delete from platform.audit_log a where {lane} and seq = ${at - 1}`], from)).toEqual([
        `${at} seq_gap`
      ])
    })
  )

  it.effect("is the same under any time zone and date style", () =>
    Effect.gen(function* () {
      const { apiUrl, atlas, at } = yield* Log
      const settings = [
        "set timezone = 'Asia/Kolkata'",
        "set datestyle = 'German'",
        "set intervalstyle = 'sql_standard'",
        "set bytea_output = 'escape'",
        "set extra_float_digits = 0"
      ]
      yield* writeEntries(apiUrl, atlas, 3, settings)
      expect(yield* found([])).toEqual([])
      expect(yield* found(settings)).toEqual([])
      const change = [`update platform.audit_log a set actor = 'x' where {lane} and seq = ${at}`]
      expect(yield* found([...change, ...settings])).toEqual([`${at} hash_mismatch`])
    })
  )

  it.effect("is neither written nor verified in another encoding, nor written in another isolation level", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { apiUrl, atlas } = yield* Log
        const connection = yield* connect(apiUrl)
        const refused = (begin: string, sql: string, role: string) =>
          Effect.gen(function* () {
            yield* connection.query(begin)
            yield* connection.query("select set_config('role', $1, true)", [role])
            if (begin === "begin") yield* connection.query("set local client_encoding = 'LATIN1'")
            const state = yield* stateOf(connection.query(sql))
            yield* connection.query("rollback")
            return state
          })
        const writer = `${atlas.schema}_writer`
        expect(yield* refused("begin", insertSql(atlas.chain).replace("é", "e"), writer)).toBe("VL002")
        expect(
          yield* refused("begin", "select * from platform.audit_verify_window(null, null)", "velocity_auditor")
        ).toBe("VL002")
        expect(yield* refused("begin isolation level repeatable read", insertSql(atlas.chain), writer)).toBe("VL002")
        expect(yield* refused("begin isolation level serializable", insertSql(atlas.chain), writer)).toBe("VL002")
      })
    )
  )

  it.effect("refuses an entry behind one of the future, and one of an unknown chain", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { superuserUrl, atlas } = yield* Log
        const connection = yield* connect(superuserUrl)
        /** As the API writes, on this connection's lane, whose last entry is `ahead` of the clock. */
        const insertAfter = (ahead: string) =>
          Effect.gen(function* () {
            yield* connection.query("begin")
            const asApi = Effect.gen(function* () {
              yield* connection.query("set local session authorization velocity_api")
              yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_writer`])
              return yield* connection.query(insertSql(atlas.chain))
            })
            yield* asApi
            yield* connection.query("reset session authorization")
            yield* connection.query("alter table platform.audit_log disable trigger all")
            yield* connection.query(
              `update platform.audit_log set occurred_at = clock_timestamp() + interval '${ahead}'
               where chain = $1 and lane = pg_backend_pid() % 32 and seq = (select max(seq) from platform.audit_log where chain = $1 and lane = pg_backend_pid() % 32)`,
              [atlas.chain]
            )
            const state = yield* Effect.match(asApi, {
              onSuccess: () => "written",
              onFailure: (error) => sqlStateOf(error)
            })
            const [row] =
              state === "written"
                ? (yield* Effect.andThen(
                    connection.query("reset session authorization"),
                    connection.query(
                      `select a.occurred_at - b.occurred_at = interval '1 microsecond' as next from platform.audit_log a
                       join platform.audit_log b on b.chain = a.chain and b.lane = a.lane and b.seq = a.seq - 1
                       where a.chain = $1 and a.lane = pg_backend_pid() % 32 order by a.seq desc limit 1`,
                      [atlas.chain]
                    )
                  )).rows
                : []
            yield* connection.query("rollback")
            return [state, row?.next]
          })
        expect(yield* insertAfter("50 seconds")).toEqual(["written", true])
        expect(yield* insertAfter("2 minutes")).toEqual(["VL004", undefined])
        // in a month whose partition is there, and is later than the clock's
        expect(yield* insertAfter("40 days")).toEqual(["VL004", undefined])
        yield* connection.query("begin")
        yield* connection.query("set local session authorization velocity_api")
        yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_writer`])
        expect(yield* stateOf(connection.query(insertSql("no/such/chain")))).toBe("VL003")
        yield* connection.query("rollback")
      })
    )
  )

  it.effect("takes up a lane whose entries are of earlier months, and one that was dropped", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { superuserUrl, atlas, kind } = yield* Log
        const before = kind === "retired" ? retiredEntries : 0
        const connection = yield* connect(superuserUrl)
        const lane = "chain = $1 and lane = pg_backend_pid() % 32"
        const asApi = Effect.gen(function* () {
          yield* connection.query("set local session authorization velocity_api")
          yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_writer`])
          yield* connection.query(insertSql(atlas.chain))
          yield* connection.query("reset session authorization")
        })
        const [month] = (yield* connection.query(
          "select (date_trunc('month', now() at time zone 'UTC') - interval '1 month')::date::text as before"
        )).rows
        yield* connection.query("begin")
        yield* connection.query("select platform.audit_partition_create($1::date)", [month?.before])
        yield* asApi
        yield* connection.query("alter table platform.audit_log disable trigger all")
        yield* connection.query(
          `update platform.audit_log set occurred_at = occurred_at - interval '1 month' where ${lane}`,
          [atlas.chain]
        )
        yield* asApi
        const seqs = yield* connection.query(
          `select array_agg(seq::int4 order by seq) as seqs, max(seq)::int4 as last, (select count(distinct tableoid)::int4 from platform.audit_log where ${lane}) as parts from platform.audit_log where ${lane}`,
          [atlas.chain]
        )
        const last = Number(seqs.rows[0]?.last)
        expect(seqs.rows[0]).toMatchObject({
          seqs: Array.from({ length: last - before }, (_, i) => before + i + 1),
          parts: 2
        })

        yield* connection.query("alter table platform.audit_log disable trigger all")
        yield* connection.query("alter table platform.audit_heads disable trigger all")
        yield* connection.query(`delete from platform.audit_heads where ${lane}`, [atlas.chain])
        yield* connection.query(
          `insert into platform.audit_heads select chain, lane, seq, occurred_at, hash from platform.audit_log where ${lane} and seq = $2::int8`,
          [atlas.chain, String(last)]
        )
        yield* connection.query(`delete from platform.audit_log where ${lane}`, [atlas.chain])
        yield* asApi
        const next = yield* connection.query(
          `select a.seq::int4 as seq, a.prev_hash = h.hash as linked from platform.audit_log a join platform.audit_heads h using (chain, lane) where a.${lane.replace("lane =", "a.lane =")}`,
          [atlas.chain]
        )
        expect(next.rows).toEqual([{ seq: last + 1, linked: true }])
        yield* connection.query("rollback")
      })
    )
  )

  it.effect("has one entry for each act that was committed, and none for one that touched nothing", () =>
    Effect.gen(function* () {
      const { apiUrl, superuserUrl, atlas } = yield* Log
      const made = yield* createCity(apiUrl, atlas, "Quito")
      const rows = yield* query(
        superuserUrl,
        `select a.id::text as id, a.actor, a.action, a.outcome, a.schema_path, a.payload, a.db_login, a.db_role, encode(e.hash, 'hex') as hash
         from platform.audit_log a join platform.event_log e on e.entity_id = a.entity_id where a.entity_id = $1::uuid`,
        [made.entity]
      )
      expect(rows).toEqual([
        {
          id: made.entry,
          actor: "dev/alice",
          action: "create",
          outcome: "ok",
          schema_path: `${atlas.chain}/city/v1`,
          payload: { event: made.event, hash: rows[0]?.hash, version: 1, fields: ["name"] },
          db_login: "velocity_api",
          db_role: `${atlas.schema}_writer`,
          hash: rows[0]?.hash
        }
      ])
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(apiUrl)
          yield* connection.query("begin")
          yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
            `${atlas.schema}_writer`,
            JSON.stringify({ op: "create", def: atlas.city.id, actor: "dev/alice", roles: ["buyer"] })
          ])
          const none = yield* connection.query(
            "select platform.audit_event(gen_random_uuid(), gen_random_uuid())::text as id"
          )
          expect(none.rows).toEqual([{ id: null }])
          // the event of an earlier transaction is no event of this one
          const old = yield* connection.query("select platform.audit_event($1::uuid, $2::uuid)::text as id", [
            made.entity,
            made.event
          ])
          expect(old.rows).toEqual([{ id: null }])
          const bulk = yield* stateOf(connection.query("select platform.audit_events(array[$1::uuid])", [made.entity]))
          expect(bulk).toBe("VL012")
          yield* connection.query("rollback")
        })
      )
    })
  )

  it.effect("has no gap and no fork after 32 writers at once, of whom some roll back and some are killed", () =>
    Effect.gen(function* () {
      const { kind, apiUrl, superuserUrl, atlas } = yield* Log
      const count = (sql: string) => Effect.map(query(superuserUrl, sql, [atlas.chain]), (rows) => Number(rows[0]?.n))
      const sizeOf = "select pg_relation_size('platform.audit_heads')::int4 as n where $1 <> ''"
      const size = yield* count(sizeOf)
      const before = yield* count("select count(*)::int4 as n from platform.audit_log where chain = $1")
      // an old snapshot, as a dump holds one
      const acknowledged = yield* Effect.scoped(
        Effect.gen(function* () {
          const dump = yield* connect(superuserUrl)
          yield* dump.query("begin isolation level repeatable read")
          yield* dump.query("select count(*) from platform.audit_log")
          const written = yield* Effect.forEach(
            Array.from({ length: 32 }, (_, i) => i),
            (writer) =>
              Effect.gen(function* () {
                let committed = 0
                for (let i = 0; i < 20; i++) {
                  const end = (writer + i) % 7 === 0 ? "rollback" : (writer * 5 + i) % 19 === 0 ? "kill" : "commit"
                  const outcome = yield* Effect.scoped(
                    Effect.gen(function* () {
                      const connection = yield* connect(apiUrl)
                      yield* connection.query("begin")
                      yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_writer`])
                      yield* connection.query(insertSql(atlas.chain))
                      if (end !== "kill") return yield* Effect.as(connection.query(end), end)
                      const [row] = (yield* connection.query("select pg_backend_pid() as pid")).rows
                      yield* query(superuserUrl, "select pg_terminate_backend($1::int4)", [row?.pid])
                      return yield* Effect.match(connection.query("commit"), {
                        onSuccess: () => "commit",
                        onFailure: () => "kill"
                      })
                    })
                  )
                  if (outcome === "commit") committed++
                }
                return committed
              }),
            { concurrency: "unbounded" }
          )
          yield* dump.query("rollback")
          return written.reduce((sum, n) => sum + n, 0)
        })
      )
      expect(acknowledged).toBeGreaterThan(400)
      expect(yield* count("select count(*)::int4 as n from platform.audit_log where chain = $1")).toBe(
        before + acknowledged
      )
      expect(yield* found([])).toEqual([])
      const lanes = yield* query(
        superuserUrl,
        "select lane, count(*) = max(seq) - $2::int8 and min(seq) = $2::int8 + 1 and count(distinct seq) = count(*) and count(distinct prev_hash) = count(*) as sound from platform.audit_log where chain = $1 group by lane",
        [atlas.chain, kind === "retired" ? retiredEntries : 0]
      )
      expect(lanes.length).toBeGreaterThan(1)
      expect(lanes.every((lane) => lane.sound)).toBe(true)
      // nothing is updated on the way, so that an old snapshot costs nothing: there is no row to bloat
      expect(yield* count(sizeOf)).toBe(size)
    })
  )

  it.effect("has the hashes that the domain's own code makes from an exported entry and event", () =>
    Effect.gen(function* () {
      const { superuserUrl } = yield* Log
      const entries = yield* query(
        superuserUrl,
        `select chain, lane::int4 as lane, seq::text as seq, to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as occurred_at,
           id::text as id, actor, action, outcome, schema_path, entity_id::text as entity_id, payload::text as payload, request_id, reason,
           ticket_ref, fail_modes::text as fail_modes, db_login, db_role, encode(prev_hash, 'hex') as prev_hash, encode(hash, 'hex') as hash
         from platform.audit_log`
      )
      expect(entries.length).toBeGreaterThan(10)
      for (const entry of entries as unknown as ReadonlyArray<AuditEntry & { readonly hash: string }>) {
        expect(Buffer.from(entryHash(entry)).toString("hex")).toBe(entry.hash)
        if (entry.seq === "1")
          expect(Buffer.from(genesis(entry.chain, entry.lane)).toString("hex")).toBe(entry.prev_hash)
      }
      const state = { name: "Ærø", order: 1, list: [1.1, null], nothing: null, Zeta: { b: 1, a: "\u2028" } }
      const values = yield* query(superuserUrl, "select key, value::text as value from jsonb_each($1::jsonb)", [
        JSON.stringify(state)
      ])
      const [made] = yield* query(
        superuserUrl,
        "select platform.event_hash('\\x0102', '7/e/1/create', $1::jsonb) as hash",
        [JSON.stringify(state)]
      )
      const ours = eventHash(
        Uint8Array.of(1, 2),
        "7/e/1/create",
        new Map(values.map((row) => [String(row.key), String(row.value)]))
      )
      expect(Buffer.from(ours).toString("hex")).toBe(Buffer.from(made?.hash as Uint8Array).toString("hex"))
    })
  )

  it.effect("of 500 records at once has one entry, whose root is RFC 6962's over their events", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { apiUrl, superuserUrl, atlas } = yield* Log
        const connection = yield* connect(apiUrl)
        const ids = Array.from({ length: 37 }, () => crypto.randomUUID())
        yield* connection.query("begin")
        yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
          `${atlas.schema}_writer`,
          JSON.stringify({ op: "create", def: atlas.city.id, actor: "dev/alice", roles: ["buyer"], request_id: "r" })
        ])
        yield* connection.query(
          `insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, hash)
           select gen_random_uuid(), $1, $2::int4, $3::int4, e::uuid, 1, 'create', clock_timestamp(), 'dev/alice', sha256(convert_to(e, 'UTF8')) from unnest($4::text[]) e`,
          [atlas.chain, atlas.city.storage, atlas.city.id, ids]
        )
        const made = yield* connection.query("select platform.audit_events($1::uuid[])::text as id", [ids])
        const tooMany = Array.from({ length: 501 }, () => crypto.randomUUID())
        yield* connection.query("savepoint s")
        expect(yield* stateOf(connection.query("select platform.audit_events($1::uuid[])", [tooMany]))).toBe("VL012")
        yield* connection.query("rollback to s")
        yield* connection.query("commit")
        const [entry] = yield* query(superuserUrl, "select payload from platform.audit_log where id = $1::uuid", [
          made.rows[0]?.id
        ])
        const sorted = ids.toSorted()
        const hashes = sorted.map((id) => leafHash(sha256(utf8(id))))
        expect(entry?.payload).toEqual({
          count: 37,
          first_id: sorted[0],
          last_id: sorted[36],
          root: Buffer.from(rootHash(hashes)).toString("hex")
        })
        expect(yield* found([])).toEqual([])
      })
    )
  )
})
