/**
 * What the API's replicas have acknowledged of a definition, as one query reads it: who of those that are alive serves the
 * generation that is in force, who has a problem with it, and who has not said anything yet.
 */
import { Effect } from "effect"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import type { Origin } from "./table/Origin.ts"

/** A replica that was not heard of for so long is dead: three heartbeats. */
export const deadAfter = "90 seconds"

/** See the module. Replicas by name, in order. */
export interface ServingState {
  readonly path: string
  /** The resource that the path belongs to. */
  readonly origin: Origin
  /** Whether anything is served; what is not, is acknowledged as well. */
  readonly served: boolean
  readonly generation: number
  readonly alive: number
  /** Those that serve it. */
  readonly serving: number
  readonly problems: ReadonlyArray<{ readonly replica: string; readonly problem: string }>
  /**
   * Those that serve an older generation. One that has only just started, and has said nothing of this definition, is waited
   * for by nobody.
   */
  readonly behind: ReadonlyArray<string>
}

// a replica may have heard of a generation that this statement does not see yet
const stateSql = `select s.path, s.source, s.namespace, s.name, s.serving is not null as served, s.generation::text as generation,
  s.resource_generation::text as resource_generation, r.alive, r.serving, r.problems::text as problems, r.behind
from platform.schema_defs s, lateral (
  select count(*)::int4 as alive,
    (count(*) filter (where a.generation >= s.generation and a.problem is null))::int4 as serving,
    coalesce(json_agg(json_build_object('replica', r.replica, 'problem', a.problem) order by r.replica)
      filter (where a.generation >= s.generation and a.problem is not null), '[]') as problems,
    coalesce(array_agg(r.replica order by r.replica)
      filter (where (r.complete or a.generation is not null) and coalesce(a.generation < s.generation, true)), '{}') as behind
  from platform.replicas r left join platform.replica_acks a on a.replica = r.replica and a.def_id = s.id
  where r.seen_at > now() - interval '${deadAfter}') as r`

const stateOf = (row: Readonly<Record<string, unknown>>): ServingState => ({
  path: String(row.path),
  origin: {
    source: String(row.source),
    namespace: String(row.namespace),
    name: String(row.name),
    generation: row.resource_generation === null ? undefined : Number(row.resource_generation)
  },
  served: row.served === true,
  generation: Number(row.generation),
  alive: Number(row.alive),
  serving: Number(row.serving),
  problems: JSON.parse(String(row.problems)) as ServingState["problems"],
  behind: Array.isArray(row.behind) ? row.behind.map(String) : []
})

/** Of one definition; undefined where there is none. */
export const servingOf = (tx: Tx, path: string): Effect.Effect<ServingState | undefined, DatabaseFailure> =>
  Effect.map(tx.query(statement(`${stateSql} where s.path = $1`, [path])), ({ rows: [row] }) =>
    row === undefined ? undefined : stateOf(row)
  )

/** Of all of them. */
export const servingOfAll = (tx: Tx): Effect.Effect<ReadonlyArray<ServingState>, DatabaseFailure> =>
  Effect.map(tx.query(statement(stateSql)), ({ rows }) => rows.map(stateOf))

/** Names for a message: the first three. */
export const someOf = (replicas: ReadonlyArray<string>): string =>
  `${replicas.slice(0, 3).join(", ")}${replicas.length > 3 ? ` and ${replicas.length - 3} more` : ""}`
