/**
 * Reads the platform's mirrors into a snapshot, as `velocity_gateway`, and only what changed.
 *
 * Everything is cut into units: the definitions of one domain, the bindings of one domain, its keys, all domains, all strategies,
 * all revocations. A digest of each unit, made by Postgres, says which ones differ from what is known; of those the rows
 * are read, and of definitions only the ones whose generation is new. So a look at everything costs one statement and a
 * few rows a domain, and nothing is missed that a notification, an out-of-order commit or a deletion kept from us.
 */
import { Effect } from "effect"
import type { Binding } from "../access/Authorization.ts"
import type { StoredKey } from "../access/KeyAuthenticator.ts"
import type { KeySetTimings } from "../access/KeySet.ts"
import { parseChain } from "../domain/Names.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { GatewayTx } from "../postgres/GatewayTx.ts"
import { type SqlResult, statement } from "../postgres/Statement.ts"
import type { Tx } from "../postgres/Transaction.ts"
import {
  bindingOf,
  type DefinitionRow,
  type DomainRow,
  emptySnapshot,
  type Snapshot,
  type StrategyRow,
  storedKeyOf,
  strategyRow
} from "./RegistrySnapshot.ts"

/** What is to be looked at: everything, or the units that hints point to. */
export type Scope = "everything" | ReadonlySet<Hint>

/** `def:<path>`, `strategy:<id>`, `bindings:<chain>`, `keys:<chain>`, `domain:<chain>` or `revoked:<actor>`, as it was notified. */
export type Hint = string

/** Beyond this many hints at once, looking at everything is cheaper. */
export const maxHints = 256

/** A snapshot and the digests of the units that it was read from. */
export interface Known {
  readonly snapshot: Snapshot
  readonly digests: ReadonlyMap<string, string>
}

export const nothingKnown: Known = { snapshot: emptySnapshot, digests: new Map() }

/** What hints point to. A hint that means nothing points to everything: anyone may notify. */
interface Units {
  readonly definitions: ReadonlyArray<string> | null
  readonly bindings: ReadonlyArray<string> | null
  readonly keys: ReadonlyArray<string> | null
  readonly whole: ReadonlyArray<"domains" | "strategies" | "revoked">
}

const everything: Units = { definitions: null, bindings: null, keys: null, whole: ["domains", "strategies", "revoked"] }

const unitsOf = (scope: Scope): Units => {
  if (scope === "everything" || scope.size > maxHints) return everything
  const definitions = new Set<string>()
  const bindings = new Set<string>()
  const keys = new Set<string>()
  const whole = new Set<Units["whole"][number]>()
  for (const hint of scope) {
    const colon = hint.indexOf(":")
    const about = hint.slice(colon + 1)
    const chain = about.split("/").slice(0, 3).join("/")
    const kind = hint.slice(0, Math.max(colon, 0))
    const isChain = about === "platform" || parseChain(about) !== undefined
    if (kind === "def" && parseChain(chain) !== undefined) definitions.add(chain)
    else if (kind === "bindings" && isChain) bindings.add(about)
    else if (kind === "keys" && isChain) keys.add(about)
    else if (kind === "domain") whole.add("domains")
    else if (kind === "strategy") whole.add("strategies")
    else if (kind === "revoked") whole.add("revoked")
    else return everything
  }
  return { definitions: [...definitions], bindings: [...bindings], keys: [...keys], whole: [...whole] }
}

// An order-free sum of hashes: cheaper than a sorted string_agg, and nobody gains by a collision that he cannot choose
const digestOf = (columns: string): string =>
  `concat(count(*), ':', sum(pg_catalog.hashtextextended(concat_ws('|', ${columns}), 0)))`

/** A key that was revoked is told so for as long as somebody may wonder why it fails; afterwards it is unknown. */
const keysKept = "(revoked_at is null or revoked_at > now() - interval '30 days') and state <> 'Pending'"

const digestSql = `
select 'definitions' as kind, chain as key, ${digestOf("id, generation, state")} as digest
from platform.schema_defs where $1::text[] is null or chain = any ($1) group by chain
union all
select 'bindings', coalesce(chain, 'platform'), ${digestOf("namespace, name, generation, expires_at, revoked_at")}
from platform.role_bindings where $2::text[] is null or coalesce(chain, 'platform') = any ($2) group by 2
union all
select 'keys', coalesce(chain, 'platform'), ${digestOf("id, generation, state, expires_at, retires_at, revoked_at")}
from platform.api_keys where ($4::text[] is null or coalesce(chain, 'platform') = any ($4)) and ${keysKept} group by 2
union all
select 'domains', '', ${digestOf("chain, auth_strategy, spec ->> 'authStrategy'")}
from platform.domains having 'domains' = any ($3::text[])
union all
select 'strategies', '', ${digestOf("id, generation, spec")}
from platform.auth_strategies having 'strategies' = any ($3)
union all
select 'revoked', '', ${digestOf("actor")}
from platform.revoked_actors having 'revoked' = any ($3)`

const definitionsSql = `
select id, path, chain, storage, storage_id, generation::text as generation, pg_schema, pg_table, foreign_keys, state,
       serving is not null as served, face::text as face,
       case when concat(id, ':', generation) = any ($2::text[]) then null else serving::text end as serving,
       wanted is null as unwanted
from platform.schema_defs where chain = any ($1::text[])`

const domainsSql = `
select chain, auth_strategy, coalesce(spec ->> 'authStrategy', '') <> '' as named
from platform.domains where chain <> 'platform'`

const strategiesSql = "select id, spec::text as spec from platform.auth_strategies"

const bindingsSql = `
select actor, coalesce(chain, 'platform') as chain, roles, scopes::text as scopes,
       (extract(epoch from expires_at) * 1000)::float8 as expires_at
from platform.role_bindings
where revoked_at is null and (expires_at is null or expires_at > now()) and coalesce(chain, 'platform') = any ($1::text[])`

const keysSql = `
select id::text as id, encode(key_hash, 'hex') as hash, actor, coalesce(chain, 'platform') as chain, roles,
       scopes::text as scopes, ip_allowlist, (extract(epoch from least(expires_at, retires_at)) * 1000)::float8 as ends_at,
       state = 'Revoked' or revoked_at is not null as revoked
from platform.api_keys where ${keysKept} and coalesce(chain, 'platform') = any ($1::text[])`

const revokedSql = "select actor from platform.revoked_actors"

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)
const texts = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((item) => typeof item === "string") : []

const definitionRow = (row: SqlResult["rows"][number], before: Snapshot["definitions"]): DefinitionRow => {
  const path = String(row.path)
  const generation = Number(row.generation)
  const served = row.served === true
  const known = before.get(path)
  // the very same value, so that whatever was compiled from it stays
  if (known !== undefined && known.id === row.id && known.generation === generation) {
    const isSame = served === (known.serving !== undefined) && (row.unwanted === true) === known.withdrawn
    if (isSame) return known
  }
  return {
    id: Number(row.id),
    path,
    chain: String(row.chain),
    storage: String(row.storage),
    generation,
    serving: served ? (text(row.serving) ?? known?.serving) : undefined,
    withdrawn: row.unwanted === true,
    rest: {
      storageId: Number(row.storage_id),
      pgSchema: String(row.pg_schema),
      pgTable: String(row.pg_table),
      foreignKeys: texts(row.foreign_keys),
      face: text(row.face)
    }
  }
}

/** A map without the entries of some chains. */
const withoutChains = <A extends { readonly chain: string }>(
  map: ReadonlyMap<string, A>,
  chains: ReadonlySet<string>
): Map<string, A> => new Map([...map].filter(([, value]) => !chains.has(value.chain)))

const readDefinitions = Effect.fnUntraced(function* (tx: Tx, before: Snapshot, chains: ReadonlyArray<string>) {
  const among = new Set(chains)
  const known = [...before.definitions.values()].filter((row) => among.has(row.chain))
  const generations = known.map((row) => `${row.id}:${row.generation}`)
  const { rows } = yield* tx.query(statement(definitionsSql, [chains, generations]))
  const definitions = withoutChains(before.definitions, among)
  for (const row of rows) {
    const made = definitionRow(row, before.definitions)
    definitions.set(made.path, made)
  }
  return definitions
})

const readBindings = Effect.fnUntraced(function* (tx: Tx, before: Snapshot, chains: ReadonlyArray<string>) {
  const { rows } = yield* tx.query(statement(bindingsSql, [chains]))
  const bindings = new Map(before.bindings)
  const fresh = new Map<string, Map<string, Array<Binding>>>()
  for (const row of rows) {
    const binding = bindingOf({
      actor: String(row.actor),
      chain: String(row.chain),
      roles: texts(row.roles),
      scopes: text(row.scopes) ?? null,
      expiresAt: typeof row.expires_at === "number" ? row.expires_at : null
    })
    if (binding === undefined) {
      yield* Effect.logWarning(`a role binding of ${row.actor} in ${row.chain} cannot be read, and grants nothing`)
      continue
    }
    const actors = fresh.get(binding.chain) ?? new Map<string, Array<Binding>>()
    fresh.set(binding.chain, actors)
    const those = actors.get(binding.actor)
    if (those === undefined) actors.set(binding.actor, [binding])
    else those.push(binding)
  }
  for (const chain of chains) {
    const actors = fresh.get(chain)
    if (actors === undefined) bindings.delete(chain)
    else bindings.set(chain, actors)
  }
  return bindings
})

const readKeys = Effect.fnUntraced(function* (tx: Tx, before: Snapshot, chains: ReadonlyArray<string>) {
  const { rows } = yield* tx.query(statement(keysSql, [chains]))
  const keys: Map<string, StoredKey> = withoutChains(before.keys, new Set(chains))
  for (const row of rows) {
    const hash = String(row.hash)
    const key = storedKeyOf({
      id: String(row.id),
      hash,
      actor: String(row.actor),
      chain: String(row.chain),
      roles: texts(row.roles),
      scopes: text(row.scopes) ?? null,
      ipAllowlist: texts(row.ip_allowlist),
      endsAt: typeof row.ends_at === "number" ? row.ends_at : null,
      isRevoked: row.revoked === true
    })
    if (key === undefined) yield* Effect.logWarning(`the API key ${row.id} cannot be read, and opens nothing`)
    else keys.set(hash, key)
  }
  return keys
})

const readDomains = Effect.fnUntraced(function* (tx: Tx) {
  const { rows } = yield* tx.query(statement(domainsSql))
  return new Map(
    rows.map((row): readonly [string, DomainRow] => {
      const chain = String(row.chain)
      return [chain, { chain, strategy: text(row.auth_strategy), named: row.named === true }]
    })
  )
})

const readStrategies = Effect.fnUntraced(function* (tx: Tx, before: Snapshot, timings: KeySetTimings | undefined) {
  const { rows } = yield* tx.query(statement(strategiesSql))
  const strategies = new Map<string, StrategyRow>()
  for (const row of rows) {
    const id = String(row.id)
    const known = before.strategies.get(id)
    const made = strategyRow(id, text(row.spec) ?? "", known, timings)
    if (made !== known && made.strategy._tag === "Failure") {
      yield* Effect.logError(`the strategy ${id} cannot be used, and believes no token: ${made.strategy.failure}`)
    }
    strategies.set(id, made)
  }
  return strategies
})

/** The units in scope whose digest is not the known one, those that are there no more among them. */
const changedUnits = (before: Known, units: Units, rows: SqlResult["rows"]) => {
  const digests = new Map(before.digests)
  const seen = new Set<string>()
  const changed = {
    definitions: new Set<string>(),
    bindings: new Set<string>(),
    keys: new Set<string>(),
    whole: new Set<string>()
  }
  const note = (kind: string, key: string) => {
    if (kind === "definitions" || kind === "bindings" || kind === "keys") changed[kind].add(key)
    else changed.whole.add(kind)
  }
  for (const row of rows) {
    const kind = String(row.kind)
    const key = String(row.key)
    const unit = `${kind}:${key}`
    seen.add(unit)
    if (digests.get(unit) === row.digest) continue
    digests.set(unit, String(row.digest))
    note(kind, key)
  }
  const inScope = (kind: string, key: string): boolean => {
    const chains = kind === "definitions" || kind === "bindings" || kind === "keys" ? units[kind] : []
    return chains === null || chains.includes(key)
  }
  for (const unit of before.digests.keys()) {
    const colon = unit.indexOf(":")
    const [kind, key] = [unit.slice(0, colon), unit.slice(colon + 1)]
    if (seen.has(unit) || !inScope(kind, key)) continue
    digests.delete(unit)
    note(kind, key)
  }
  return { digests, changed }
}

/**
 * Looks at what is in scope and answers what is known afterwards: the same value where nothing changed. One transaction;
 * a change that is committed while it runs is found by the next look.
 */
export const look = (
  gateway: GatewayTx["Service"],
  before: Known,
  scope: Scope,
  timings?: KeySetTimings
): Effect.Effect<Known, DatabaseFailure> => {
  const units = unitsOf(scope)
  return gateway.run(
    Effect.fnUntraced(function* (tx) {
      const found = yield* tx.query(statement(digestSql, [units.definitions, units.bindings, units.whole, units.keys]))
      const { changed, digests } = changedUnits(before, units, found.rows)
      if (changed.definitions.size + changed.bindings.size + changed.keys.size + changed.whole.size === 0) return before
      const { snapshot } = before
      const strategies = changed.whole.has("strategies")
        ? yield* readStrategies(tx, snapshot, timings)
        : snapshot.strategies
      const domains = changed.whole.has("domains") ? yield* readDomains(tx) : snapshot.domains
      const definitions =
        changed.definitions.size > 0
          ? yield* readDefinitions(tx, snapshot, [...changed.definitions])
          : snapshot.definitions
      const bindings =
        changed.bindings.size > 0 ? yield* readBindings(tx, snapshot, [...changed.bindings]) : snapshot.bindings
      const keys = changed.keys.size > 0 ? yield* readKeys(tx, snapshot, [...changed.keys]) : snapshot.keys
      const revoked = changed.whole.has("revoked")
        ? new Set((yield* tx.query(statement(revokedSql))).rows.map((row) => String(row.actor)))
        : snapshot.revoked
      return { snapshot: { definitions, domains, strategies, bindings, keys, revoked }, digests }
    }),
    { end: "read" }
  )
}
