/**
 * What is known of each resource, in `platform.resource_status` and here: generation, conditions, status. A status that
 * says what it said is not written.
 */
import { Clock, Effect } from "effect"
import { apiVersion, type Condition, decodeResource, type Resource } from "../../domain/Resource.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { canonicalJson, specHash } from "../../provisioning/table/SpecHash.ts"
import { conditionsOf, phaseOf, spoiled, type Verdict } from "./Conditions.ts"
import type { Fence, Superseded } from "./Fence.ts"
import type { Serving } from "./Serving.ts"

/** One resource's row. */
export interface ResourceState {
  readonly identity: string
  /** Counts the specs that were seen. */
  readonly generation: number
  readonly specHash: string
  readonly conditions: ReadonlyArray<Condition>
  readonly status: Readonly<Record<string, unknown>>
}

const kindsProvisioned = new Set(["Domain", "SchemaDefinition"])

const partsOf = (identity: string) => {
  const [kind = "", namespace = "", name = ""] = identity.split("/")
  return { kind, namespace, name }
}

const comparable = (conditions: ReadonlyArray<Condition>): string =>
  canonicalJson(conditions.map(({ lastTransitionTime: _, ...rest }) => rest))

/** Specs of what children stand on alone: of the others nobody asks for what they were. */
const readSql = `select kind, namespace, name, generation::text as generation, spec_hash, conditions::text as conditions, status::text as status,
    case when kind in ('Organisation', 'Application', 'Domain') then spec::text end as spec
  from platform.resource_status where source = $1`

/** Identities that mirrors know and that may have no status: what an interrupted operator had made. */
const mirroredSql = `select 'SchemaDefinition' as kind, namespace, name from platform.schema_defs where source = $1 and (serving is not null or state = 'Withdrawing')
  union select 'Domain', namespace, name from platform.domains where source = $1 and spec is not null
  union select 'AuthStrategy', namespace, name from platform.auth_strategies where source = $1
  union select 'RoleBinding', namespace, name from platform.role_bindings where source = $1
  union select 'ApiKey', namespace, name from platform.api_keys where source = $1 and not departed`

/** The same, and what it had only begun: definitions that were never served and have a plan. */
const knownSql = `${mirroredSql}
  union select 'SchemaDefinition', s.namespace, s.name from platform.schema_defs s join platform.plans p on p.path = s.path
    where s.source = $1 and p.state in ('Waiting', 'Running')`

/** Whether a resource has something in Postgres that outlives its status. What is being withdrawn is only to be ended. */
const mirrorSql = `select exists (select from (${mirroredSql}) as known (kind, namespace, name)
  where kind = $2 and namespace = $3 and name = $4) and not exists (select from platform.schema_defs
  where $2 = 'SchemaDefinition' and source = $1 and namespace = $3 and name = $4 and state = 'Withdrawing' and serving is null) as kept`

/** Who numbers the specs of a resource: its API server, or we. */
export type Generations = "server" | "counted"

/** Reads and writes the statuses of one source's resources. */
export class ResourceStatuses {
  private readonly fence: Fence["Service"]
  private readonly states: Map<string, ResourceState>
  /** Identities that the database knew at the start. */
  readonly known: ReadonlyArray<string>
  /** What children stand on, as it was when the database heard of it last. */
  readonly remembered: ReadonlyMap<string, Resource>

  private readonly generations: Generations

  private constructor(
    fence: Fence["Service"],
    states: Map<string, ResourceState>,
    known: ReadonlyArray<string>,
    remembered: ReadonlyMap<string, Resource>,
    generations: Generations
  ) {
    this.fence = fence
    this.generations = generations
    this.states = states
    this.known = known
    this.remembered = remembered
  }

  /** Everything that the database knows of this source. */
  static readonly load = Effect.fnUntraced(function* (fence: Fence["Service"], generations: Generations = "counted") {
    return yield* fence.read(
      Effect.fnUntraced(function* (tx: Tx) {
        const { rows } = yield* tx.query(statement(readSql, [fence.source]))
        const states = new Map<string, ResourceState>()
        const remembered = new Map<string, Resource>()
        for (const row of rows) {
          const identity = `${row.kind}/${row.namespace}/${row.name}`
          states.set(identity, {
            identity,
            generation: Number(row.generation ?? 0),
            specHash: String(row.spec_hash ?? ""),
            conditions: JSON.parse(String(row.conditions)) as ReadonlyArray<Condition>,
            status: JSON.parse(String(row.status)) as Record<string, unknown>
          })
          if (typeof row.spec !== "string") continue
          const metadata = { namespace: row.namespace, name: row.name }
          const was = decodeResource({ apiVersion, kind: row.kind, metadata, spec: JSON.parse(row.spec) })
          if ("resource" in was) remembered.set(identity, was.resource)
        }
        const mirrors = yield* tx.query(statement(knownSql, [fence.source]))
        const known = new Set([
          ...states.keys(),
          ...mirrors.rows.map((row) => `${row.kind}/${row.namespace}/${row.name}`)
        ])
        return new ResourceStatuses(fence, states, [...known], remembered, generations)
      })
    )
  })

  readonly get = (identity: string): ResourceState | undefined => this.states.get(identity)
  readonly all = (): ReadonlyArray<ResourceState> => [...this.states.values()]

  /** The generation that a resource has with this spec. */
  readonly generationOf = (identity: string, resource: Resource): number => {
    const { generation } = resource.metadata
    if (this.generations === "server" && generation !== undefined) return generation
    const state = this.states.get(identity)
    if (state === undefined) return 1
    return state.specHash === specHash(resource.spec) ? state.generation : state.generation + 1
  }

  /** Keeps a verdict, of a resource or of what is left of one; answers the new state and whether it says something new. */
  readonly conclude = (
    identity: string,
    resource: Resource | undefined,
    verdict: Verdict,
    status?: Readonly<Record<string, unknown>>,
    serving?: Serving
  ): Effect.Effect<{ readonly state: ResourceState; readonly changed: boolean }, DatabaseFailure | Superseded> =>
    Effect.gen({ self: this }, function* () {
      const before = this.states.get(identity)
      const generation = resource === undefined ? (before?.generation ?? 1) : this.generationOf(identity, resource)
      const now = new Date(yield* Clock.currentTimeMillis).toISOString()
      const conditions = conditionsOf(verdict, {
        provisioned: resource === undefined ? "kept" : kindsProvisioned.has(resource.kind) ? "said" : "none",
        generation,
        now,
        before: before?.conditions ?? [],
        serving
      })
      const state = {
        identity,
        generation,
        specHash: resource === undefined ? (before?.specHash ?? "") : specHash(resource.spec),
        conditions,
        status: {
          ...(status ?? before?.status),
          ...(partsOf(identity).kind === "SchemaDefinition" ? { phase: phaseOf(verdict) } : {})
        }
      }
      return { state, changed: yield* this.write(state, resource) }
    })

  /** Whether Postgres has a mirror row of it: what is served, or stood on, whoever looks after it. */
  readonly hasMirror = (identity: string): Effect.Effect<boolean, DatabaseFailure> => {
    const { kind, name, namespace } = partsOf(identity)
    return this.fence
      .read((tx) => tx.query(statement(mirrorSql, [this.fence.source, kind, namespace, name])))
      .pipe(Effect.map(({ rows }) => rows[0]?.kept === true))
  }

  /** Says of a resource that its manifest went bad; it stays what it was. */
  readonly spoil = (identity: string, message: string): Effect.Effect<boolean, DatabaseFailure | Superseded> =>
    Effect.gen({ self: this }, function* () {
      const before = this.states.get(identity)
      const now = new Date(yield* Clock.currentTimeMillis).toISOString()
      const conditions = spoiled(before?.conditions ?? [], message, now)
      const state = before ?? { identity, generation: 0, specHash: "", status: {} }
      return yield* this.write({ ...state, conditions }, undefined)
    })

  readonly remove = (identity: string): Effect.Effect<void, DatabaseFailure | Superseded> =>
    Effect.gen({ self: this }, function* () {
      if (!this.states.has(identity)) return
      const { kind, name, namespace } = partsOf(identity)
      yield* this.fence.transaction((tx) =>
        tx.query(
          statement(
            "delete from platform.resource_status where kind = $1 and namespace = $2 and name = $3 and source = $4",
            [kind, namespace, name, this.fence.source]
          )
        )
      )
      this.states.delete(identity)
    })

  private readonly write = Effect.fnUntraced(
    { self: this },
    function* (state: ResourceState, resource: Resource | undefined) {
      const before = this.states.get(state.identity)
      if (
        before !== undefined &&
        before.specHash === state.specHash &&
        before.generation === state.generation &&
        comparable(before.conditions) === comparable(state.conditions) &&
        canonicalJson(before.status) === canonicalJson(state.status)
      ) {
        return false
      }
      const { kind, name, namespace } = partsOf(state.identity)
      yield* this.fence.transaction((tx) =>
        tx.query(
          statement(
            `insert into platform.resource_status (kind, namespace, name, source, uid, generation, observed_generation, spec, spec_hash, conditions, status)
           values ($1, $2, $3, $4, $5, $6::int8, $6::int8, $7::jsonb, $8, $9::jsonb, $10::jsonb)
           on conflict (kind, namespace, name) do update set source = excluded.source, uid = excluded.uid, generation = excluded.generation,
             observed_generation = excluded.observed_generation, spec = coalesce(excluded.spec, resource_status.spec),
             spec_hash = excluded.spec_hash, conditions = excluded.conditions, status = excluded.status, updated_at = now()`,
            [
              kind,
              namespace,
              name,
              this.fence.source,
              resource?.metadata.uid ?? null,
              String(state.generation),
              resource === undefined ? null : JSON.stringify(resource.spec),
              state.specHash,
              JSON.stringify(state.conditions),
              JSON.stringify(state.status)
            ]
          )
        )
      )
      this.states.set(state.identity, state)
      return true
    }
  )
}
