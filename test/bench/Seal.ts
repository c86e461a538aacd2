/** Sealing: its rate, what it costs writers, what a proof takes, and the storage of a million entries with proofs and without. */
import { inspect } from "node:util"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { turnAbout } from "./Measure.ts"
import { scriptOf } from "./Script.ts"
import type { Section } from "./Sections.ts"
import { call, query, type World } from "./World.ts"

/** Entries that are written to be sealed, for each second of effort. */
const entriesPerSecond = 25_000
const batch = 20_000
const writers = 8
const proofs = 200

type Ask = (sql: string, params?: ReadonlyArray<unknown>) => Promise<ReadonlyArray<Readonly<Record<string, unknown>>>>

/** One connection for several statements. */
const connected = <A>(url: string, f: (ask: Ask) => Promise<A>): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.flatMap(PgConnection.make({ url: Redacted.make(url), applicationName: "velocity bench" }), (connection) =>
        Effect.promise(() =>
          f((sql, params = []) => Effect.runPromise(Effect.map(connection.query(sql, params), (result) => result.rows)))
        )
      )
    )
  )

const sizes = async (world: World) => {
  const [row] = await query(
    world.ready.postgres.admin,
    `select (select sum(pg_total_relation_size(relid)) from pg_partition_tree('platform.audit_log'))::float8 as log,
       (pg_total_relation_size('platform.audit_leaves') + pg_total_relation_size('platform.audit_tiles'))::float8 as tree`
  )
  return { log: Number(row?.log), tree: Number(row?.tree) }
}

/** Appends what is not sealed yet, in batches; answers how many entries that were. The product's own sealer may be faster. */
const sealAll = async (ask: Ask): Promise<number> => {
  let sealed = 0
  for (;;) {
    const taken = await ask(
      "select taken from platform.audit_seal_append(platform.audit_tree_size(), $1::int4, null, null)",
      [batch]
    ).then(
      ([row]) => Number(row?.taken),
      (cause: unknown) => {
        if (inspect(cause, { depth: 10 }).includes("VL040")) return undefined
        throw cause
      }
    )
    sealed += taken ?? 0
    if (taken !== undefined && taken < batch) return sealed
  }
}

/** Seconds until the product's own sealer has signed everything. */
const signed = async (world: World): Promise<void> => {
  for (;;) {
    const [row] = await query(
      world.ready.postgres.admin,
      "select platform.audit_tree_size() = (select max(size) from platform.audit_checkpoints) and platform.audit_tree_size() > 0 as done"
    )
    if (row?.done === true) return
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

export const seal: Section = async ({ driver, effort, say, world }) => {
  const { admin, operator } = world.ready.postgres
  const wanted = entriesPerSecond * effort.seconds
  const before = await sizes(world)
  say(`seal: writing ${wanted} entries`)
  const rate = await connected(operator, async (ask) => {
    // in one transaction, so that the product's own sealer sees none of them meanwhile
    await ask("begin")
    await ask("select set_config('statement_timeout', '0', true)")
    await ask(
      `select count(platform.audit_insert('platform', 'bench', 'operator.bench', 'ok', 'acme/geo/atlas/city/v1', gen_random_uuid(),
         '{"event":"0198f2a0-0000-7000-8000-000000000000","version":1,"fields":["name","population"]}'::jsonb, null, 'r-bench', null, null))
       from generate_series(1, $1::int4)`,
      [wanted]
    )
    await ask("select set_config('role', 'velocity_sealer', true)")
    say(`seal: sealing ${wanted} entries`)
    const began = performance.now()
    const sealed = await sealAll(ask)
    const seconds = (performance.now() - began) / 1000
    await ask("commit")
    return sealed / seconds
  })
  const after = await sizes(world)
  const megabytes = (bytes: number) => (bytes / wanted) * (1_000_000 / 1024 ** 2)

  say("seal: proofs")
  await signed(world)
  const ids = await query(
    admin,
    "select a.id::text as id from platform.audit_log a tablesample system (1) where a.action = 'operator.bench' limit $1::int4",
    [proofs]
  )
  let largest = 0
  const began = performance.now()
  for (const { id } of ids) {
    const proof = await call(world, `/api/platform/audit/${String(id)}/proof`)
    largest = Math.max(largest, JSON.stringify(proof).length)
  }
  const each = (performance.now() - began) / Math.max(1, ids.length)

  const script = scriptOf("audited-insert.sql", {})
  const run = driver.run({ url: operator, clients: writers, script })
  const rates = await turnAbout(
    {
      // nobody seals while somebody else holds the tree's lock
      alone: (seconds) =>
        connected(admin, async (ask) => {
          await ask("select pg_advisory_lock(hashtextextended('velocity/seal', 0))")
          return run(seconds)
        }),
      // a round a second: ten times as often as the product's own
      sealed: (seconds) =>
        connected(admin, async (ask) => {
          let over = false
          const rounds = (async () => {
            while (!over) {
              await sealAll(ask)
              await new Promise((resolve) => setTimeout(resolve, 1_000))
            }
          })()
          const tps = await run(seconds)
          over = true
          await rounds
          return tps
        })
    },
    effort,
    (name) => say(`seal: ${writers} writers, ${name}`)
  )
  return [
    { what: "sealing, nothing else running", ours: rate, unit: "entries/s", against: "", target: { least: 10_000 } },
    {
      what: "audited insert while it is sealed every second",
      clients: writers,
      ours: rates.sealed,
      unit: "/s",
      against: "nobody seals",
      theirs: rates.alone,
      target: { ratio: 0.9 }
    },
    { what: "a proof over HTTP", ours: each, unit: "ms", against: "", target: { most: 20 } },
    { what: "the largest proof", ours: largest, unit: "bytes", against: "", target: { most: 4_096 } },
    {
      what: "a million entries, with proofs",
      ours: megabytes(after.log + after.tree - before.log - before.tree),
      unit: "MiB",
      against: "without proofs",
      theirs: megabytes(after.log - before.log)
    }
  ]
}
