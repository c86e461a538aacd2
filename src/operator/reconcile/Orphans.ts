/**
 * Orphans (fine print 8): what Postgres has of a resource that a complete list of its own source lacks, and that nobody was
 * seen to delete. It is served on, until its object is applied again under its name or a person decides: `release` ends it
 * as its deletion under `Retain` would have, `drop` destroys a definition's records with it, and those that are kept of one
 * that was deleted under `Retain`.
 *
 * An orphan is told by its condition (`Stalled`, reason `Orphaned`), which the operator writes and which goes with the next
 * reconciliation of the resource. Who releases one is no leader: the domain's lock keeps him and the operator apart.
 */
import { Data, Effect } from "effect"
import * as AuditChain from "../../postgres/AuditChain.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import * as Dropping from "../../provisioning/Dropping.ts"
import { dropEmptyDomain, withdrawDomain } from "../../provisioning/ProvisionDomain.ts"
import { lockDomain } from "../../provisioning/table/Names.ts"
import { withdraw } from "../../provisioning/Withdrawal.ts"
import { removeStrategy } from "./AuthStrategyReconciler.ts"

/** The condition's reason. */
export const orphaned = "Orphaned"

/** On this channel the operator hears that a person decided what becomes of something; of what, it looks up. */
const toldSql = "select pg_notify('velocity_serving', 'decided')::text as sent"

export interface Orphan {
  readonly kind: "SchemaDefinition" | "Domain" | "AuthStrategy"
  /** A definition's path, a domain's `org/app/domain`, a strategy's id. */
  readonly path: string
  readonly source: string
  readonly namespace: string
  readonly name: string
  /** Of a definition: the table of its records, and about how many there are. */
  readonly table: string | undefined
  /** The version whose table that is, where it is another's. */
  readonly owner: string | undefined
  readonly records: number | undefined
  /** Since when it is an orphan, or is kept. */
  readonly since: string
}

/** Why an orphan is not released or dropped. */
export class OrphanKept extends Data.TaggedError("OrphanKept")<{ readonly message: string }> {}

const kept = (message: string) => new OrphanKept({ message })

/** About how many records a definition's table has, and since when. */
const aboutSql = (since: string) => `d.pg_schema, coalesce(o.pg_table, d.pg_table) as pg_table, o.path as owner,
    (select greatest(c.reltuples, 0)::int8::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = d.pg_schema and c.relname = coalesce(o.pg_table, d.pg_table)) as records,
    to_char(${since} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as since`

const listSql = `select r.kind, r.namespace, r.name, r.source, coalesce(d.path, m.chain, a.id) as path, ${aboutSql("r.updated_at")}
  from platform.resource_status r
  left join platform.schema_defs d on r.kind = 'SchemaDefinition' and d.source = r.source and d.namespace = r.namespace and d.name = r.name and d.serving is not null
  left join platform.schema_defs o on o.id = d.owner_id
  left join platform.domains m on r.kind = 'Domain' and m.source = r.source and m.namespace = r.namespace and m.name = r.name and m.spec is not null
  left join platform.auth_strategies a on r.kind = 'AuthStrategy' and a.source = r.source and a.namespace = r.namespace and a.name = r.name
  where coalesce(d.path, m.chain, a.id) is not null
    and exists (select from jsonb_array_elements(r.conditions) c where c ->> 'type' = 'Stalled' and c ->> 'status' = 'True' and c ->> 'reason' = '${orphaned}')
  order by case r.kind when 'SchemaDefinition' then 1 when 'Domain' then 2 else 3 end, path`

// what somebody wants again has said so in `wanted`
const keptSql = `select 'SchemaDefinition' as kind, d.namespace, d.name, d.source, d.path, ${aboutSql("d.updated_at")}
  from platform.schema_defs d left join platform.schema_defs o on o.id = d.owner_id
  where d.state = 'Withdrawn' and d.serving is null and d.wanted is null order by d.path`

const read = (tx: Tx, sql: string) =>
  Effect.map(
    tx.query(statement(sql)),
    ({ rows }): ReadonlyArray<Orphan> =>
      rows.map((row) => ({
        kind: row.kind as Orphan["kind"],
        path: String(row.path),
        source: String(row.source),
        namespace: String(row.namespace),
        name: String(row.name),
        table: typeof row.pg_table === "string" ? `${String(row.pg_schema)}.${row.pg_table}` : undefined,
        owner: typeof row.owner === "string" ? row.owner : undefined,
        records: typeof row.records === "string" ? Number(row.records) : undefined,
        since: String(row.since)
      }))
  )

/** All of them, those first that others stand on last. */
export const list = (tx: Tx) => read(tx, listSql)

/** Definitions that were deleted under `Retain`, or released, and whose records are kept. */
export const listKept = (tx: Tx) => read(tx, keptSql)

const find = Effect.fnUntraced(function* (tx: Tx, path: string) {
  const found = (yield* list(tx)).find((one) => one.path === path)
  return found ?? (yield* kept(`${path} is no orphan; see velocity orphan list`))
})

const chainOfPath = (path: string): string => path.split("/").slice(0, 3).join("/")

const entry = (tx: Tx, { kind, path, table }: Orphan, action: string, by: string) =>
  AuditChain.insert(tx, {
    chain: kind === "AuthStrategy" ? "platform" : chainOfPath(path),
    actor: by,
    action,
    outcome: "ok",
    ...(kind === "SchemaDefinition" ? { schemaPath: path } : {}),
    payload: { kind, path, table: table ?? null }
  })

const forget = (tx: Tx, { kind, name, namespace, source }: Orphan) =>
  tx.query(
    statement("delete from platform.resource_status where kind = $1 and namespace = $2 and name = $3 and source = $4", [
      kind,
      namespace,
      name,
      source
    ])
  )

const firstOf = (tx: Tx, sql: string, params: ReadonlyArray<unknown>) =>
  Effect.map(tx.query(statement(sql, params)), ({ rows }) => rows.map((row) => String(row.one)))

/**
 * Ends what it has, as its deletion under `Retain` would have. A definition that replicas serve still has its rights taken
 * away by the operator when they have said that they do not, and keeps its status until then. Answers whether that is so.
 */
const end = Effect.fnUntraced(function* (tx: Tx, orphan: Orphan) {
  const { kind, name, namespace, path, source } = orphan
  const origin = { source, namespace, name }
  let waits = false
  if (kind === "SchemaDefinition") {
    waits = (yield* withdraw(tx, { path, origin, leaving: new Set(), keeps: true }))._tag === "Waits"
  } else if (kind === "Domain") {
    yield* lockDomain(tx, path)
    const children = yield* firstOf(
      tx,
      `select path as one from platform.schema_defs where chain = $1 and serving is not null
       union all select actor from platform.role_bindings where chain = $1 and revoked_at is null order by 1 limit 10`,
      [path]
    )
    if (children.length > 0) return yield* kept(`${path} has ${children.join(", ")}`)
    yield* withdrawDomain(tx, origin, true)
  } else {
    const trusting = yield* firstOf(
      tx,
      "select chain as one from platform.domains where auth_strategy = $1 and spec is not null order by 1 limit 10",
      [path]
    )
    if (trusting.length > 0) return yield* kept(`${trusting.join(", ")} trust it`)
    yield* removeStrategy(tx, path, origin)
  }
  if (!waits) yield* forget(tx, orphan)
  yield* tx.query(statement(toldSql))
  return waits
})

/** Lets an orphan go: its records, its path and its name stay. `by` is who decided. */
export const release = Effect.fn("Orphans.release")(function* (tx: Tx, path: string, by: string) {
  const orphan = yield* find(tx, path)
  yield* end(tx, orphan)
  yield* entry(tx, orphan, "operator.orphan.release", by)
  return orphan
})

/** What can be dropped at a path: an orphan, or what is kept of a definition. */
const droppable = Effect.fnUntraced(function* (tx: Tx, path: string) {
  const isAt = (one: Orphan) => one.path === path
  const orphan = (yield* list(tx)).find(isAt)
  if (orphan !== undefined) return { orphan, isServed: true }
  const records = (yield* listKept(tx)).find(isAt)
  if (records !== undefined) return { orphan: records, isServed: false }
  return yield* kept(`${path} is no orphan, and nothing is kept of it; see velocity orphan list --kept`)
})

/**
 * Destroys the records of a definition that is an orphan, or that was deleted under `Retain`, and gives its name away. What
 * the log and the history hold of them goes with their months; a definition that comes to this path later has another
 * history, and versions that showed the records and are gone are forgotten with them. Refused while the domain is under a
 * legal hold, or another table refers to this one, and of a version whose records are another's.
 *
 * Nothing is destroyed that a replica serves: it `waits` then, and is to be called again with the orphan `begun`. Broken off
 * in between it has come to a release.
 */
export const drop = Effect.fn("Orphans.drop")(function* (tx: Tx, path: string, by: string, begun?: Orphan) {
  yield* lockDomain(tx, chainOfPath(path))
  const { isServed, orphan } = begun === undefined ? yield* droppable(tx, path) : { isServed: true, orphan: begun }
  if (orphan.kind !== "SchemaDefinition") return yield* kept(`${path} has no records of its own: release it`)
  if (orphan.owner !== undefined) {
    return yield* kept(`the records of ${path} are those of ${orphan.owner}: ${isServed ? "release it" : "drop that"}`)
  }
  if (begun !== undefined) {
    const ended =
      "select path as one from platform.schema_defs where path = $1 and state in ('Withdrawing', 'Withdrawn')"
    if ((yield* firstOf(tx, ended, [path])).length === 0) return yield* kept(`${path} was applied again meanwhile`)
  }
  const nobody: ReadonlySet<string> = new Set()
  yield* Dropping.refuseDropping(tx, path, nobody)
  if (isServed && (yield* end(tx, orphan))) return { orphan, waits: true }
  yield* Dropping.drop(tx, path, nobody)
  yield* tx.query(statement(toldSql))
  yield* entry(tx, orphan, "operator.orphan.drop", by)
  yield* dropEmptyDomain(tx, chainOfPath(path), by)
  return { orphan, waits: false }
})
