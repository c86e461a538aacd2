/**
 * What one replica knows of the platform at one moment, as one immutable value: definitions, domains, strategies,
 * bindings, API keys, revocations. The Registry exchanges it whole; a request that began with one ends with it.
 *
 * What could not be read is left out in the direction that denies: a strategy that cannot be compiled believes no token,
 * a binding that cannot be read grants nothing, a key that cannot be read opens nothing.
 */
import { Option, Result, Schema } from "effect"
import type { Strategy } from "../access/Authenticator.ts"
import type { Binding } from "../access/Authorization.ts"
import { compileJwt, type JwtStrategy } from "../access/JwtStrategy.ts"
import type { StoredKey } from "../access/KeyAuthenticator.ts"
import { defaultTimings, type KeySetTimings } from "../access/KeySet.ts"
import { parseRange } from "../domain/AddressRange.ts"
import { AuthStrategySpec, namespaceOfStrategy, strategyCandidates } from "../domain/AuthStrategy.ts"
import { BindingScope } from "../domain/RoleBinding.ts"
import { ServedDefinition } from "../domain/ServedDefinition.ts"
import { fromHex } from "../domain/Sha256.ts"

/** A row of `platform.schema_defs`. The definition itself is decoded when it is first asked for. */
export interface DefinitionRow {
  readonly id: number
  readonly path: string
  readonly chain: string
  readonly storage: string
  readonly generation: number
  /** What is served, as JSON text; undefined where nothing is. */
  readonly serving: string | undefined
  /** Whether something was served once: what is missing now is gone, and not unknown. */
  readonly withdrawn: boolean
  readonly rest: {
    readonly storageId: number
    readonly pgSchema: string
    readonly pgTable: string
    readonly foreignKeys: ReadonlyArray<string>
    /** `Face` as JSON text; undefined where the rows are no other version's. */
    readonly face: string | undefined
  }
}

/** A domain's strategy, and whether the domain itself named it. */
export interface DomainRow {
  readonly chain: string
  readonly strategy: string | undefined
  readonly named: boolean
}

/** A strategy's row with what became of it; the same value while the row is the same. */
export interface StrategyRow {
  readonly id: string
  readonly spec: string
  readonly strategy: Result.Result<Strategy, string>
}

/** See the module. Maps and sets are never changed once they are here. */
export interface Snapshot {
  readonly definitions: ReadonlyMap<string, DefinitionRow>
  readonly domains: ReadonlyMap<string, DomainRow>
  readonly strategies: ReadonlyMap<string, StrategyRow>
  /** By chain, then by actor. */
  readonly bindings: ReadonlyMap<string, ReadonlyMap<string, ReadonlyArray<Binding>>>
  /** By SHA-256 in hexadecimal; revoked ones too, for a while. */
  readonly keys: ReadonlyMap<string, StoredKey>
  readonly revoked: ReadonlySet<string>
}

export const emptySnapshot: Snapshot = {
  definitions: new Map(),
  domains: new Map(),
  strategies: new Map(),
  bindings: new Map(),
  keys: new Map(),
  revoked: new Set()
}

/** What is looked up at each request, made once for each snapshot. */
export interface SnapshotIndex {
  /** The strategies that a domain trusts; a composite's are its members. */
  readonly trusted: ReadonlyMap<string, ReadonlyArray<string>>
  /** By the id of a composite its members in force. */
  readonly composites: ReadonlyMap<string, ReadonlyArray<string>>
  readonly issuedBy: ReadonlyMap<string, ReadonlyArray<JwtStrategy>>
  /** By object (`acme/geo/atlas/city`): the number of its newest version that is served. */
  readonly newest: ReadonlyMap<string, number>
}

/** An object and the number of its version, from a path. */
export const versionOf = (path: string): readonly [object: string, version: number] => {
  const slash = path.lastIndexOf("/")
  return [path.slice(0, slash), Number(path.slice(slash + 2))]
}

/** The strategy under an id, where it is in force. */
export const strategyOf = (snapshot: Snapshot, id: string): Strategy | undefined => {
  const row = snapshot.strategies.get(id)
  return row === undefined ? undefined : Option.getOrUndefined(Result.getSuccess(row.strategy))
}

/** What a composite stands for: its members of type jwt and apikey. One that is missing, or of another type, admits nobody. */
const membersOf = (snapshot: Snapshot, members: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> =>
  members.flatMap((candidates) => {
    const id = candidates.find((one) => snapshot.strategies.has(one))
    const type = id === undefined ? undefined : strategyOf(snapshot, id)?.type
    return id !== undefined && (type === "jwt" || type === "apikey") ? [id] : []
  })

/** Makes the index. A strategy of type `none` counts only for a domain that names it itself. */
export const indexOf = (snapshot: Snapshot): SnapshotIndex => {
  const composites = new Map<string, ReadonlyArray<string>>()
  for (const id of snapshot.strategies.keys()) {
    const strategy = strategyOf(snapshot, id)
    if (strategy?.type === "composite") composites.set(id, membersOf(snapshot, strategy.members))
  }
  const trusted = new Map<string, ReadonlyArray<string>>()
  for (const domain of snapshot.domains.values()) {
    const strategy = domain.strategy === undefined ? undefined : strategyOf(snapshot, domain.strategy)
    if (strategy !== undefined && (strategy.type !== "none" || domain.named)) {
      trusted.set(domain.chain, composites.get(strategy.id) ?? [strategy.id])
    }
  }
  const issuedBy = new Map<string, Array<JwtStrategy>>()
  for (const id of [...snapshot.strategies.keys()].sort()) {
    const strategy = strategyOf(snapshot, id)
    if (strategy?.type !== "jwt") continue
    for (const issuer of strategy.jwt.issuers) {
      const those = issuedBy.get(issuer)
      if (those === undefined) issuedBy.set(issuer, [strategy.jwt])
      else those.push(strategy.jwt)
    }
  }
  const newest = new Map<string, number>()
  for (const { path, serving } of snapshot.definitions.values()) {
    if (serving === undefined) continue
    const [object, version] = versionOf(path)
    newest.set(object, Math.max(version, newest.get(object) ?? 0))
  }
  return { trusted, composites, issuedBy, newest }
}

// a key that this release does not know may be one that narrows: what has one is not understood, and so not applied
const strictly = { onExcessProperty: "error" } as const

const decodeStrategy = Schema.decodeUnknownResult(AuthStrategySpec, strictly)

/** Compiles a strategy's row; the one of before is kept, with the keys that it has fetched, while the spec is the same. */
export const strategyRow = (
  id: string,
  spec: string,
  before: StrategyRow | undefined,
  timings: KeySetTimings = defaultTimings
): StrategyRow => {
  if (before?.spec === spec) return before
  const strategy = Result.gen(function* () {
    const decoded = yield* Result.mapError(decodeStrategy(parsed(spec)), (error) => error.message)
    if (decoded.type === "none" || decoded.type === "apikey") return { type: decoded.type, id } as const
    if (decoded.type === "composite") {
      if (decoded.composite === undefined) return yield* Result.fail("a strategy of type composite names none")
      const members = decoded.composite.strategies.map((one) => strategyCandidates(namespaceOfStrategy(id), one))
      return { type: "composite", id, members } as const
    }
    if (decoded.jwt === undefined) return yield* Result.fail("a strategy of type jwt says nothing about jwt")
    return { type: "jwt", id, jwt: yield* compileJwt(id, decoded.jwt, timings) } as const
  })
  return { id, spec, strategy }
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const decodeScopes = Schema.decodeUnknownResult(Schema.Array(BindingScope), strictly)

/** A binding from its row, or nothing where the row cannot be read: a scope that is not understood narrows to nothing. */
export const bindingOf = (row: {
  readonly actor: string
  readonly chain: string
  readonly roles: ReadonlyArray<string>
  readonly scopes: string | null
  readonly expiresAt: number | null
}): Binding | undefined => {
  const { actor, chain, roles } = row
  const scopes = row.scopes === null || row.scopes === "null" ? Result.succeed([]) : decodeScopes(parsed(row.scopes))
  return Result.isFailure(scopes)
    ? undefined
    : { actor, chain, roles, scopes: scopes.success, expiresAt: row.expiresAt ?? Number.POSITIVE_INFINITY }
}

/** A key from its row, or nothing where the row cannot be read: what it is narrowed by must be understood whole. */
export const storedKeyOf = (row: {
  readonly id: string
  readonly hash: string
  readonly actor: string
  readonly chain: string
  readonly roles: ReadonlyArray<string>
  readonly scopes: string | null
  readonly ipAllowlist: ReadonlyArray<string>
  readonly endsAt: number | null
  readonly isRevoked: boolean
}): StoredKey | undefined => {
  const { actor, chain, id, isRevoked, roles } = row
  const scopes = row.scopes === null || row.scopes === "null" ? Result.succeed([]) : decodeScopes(parsed(row.scopes))
  const ranges = row.ipAllowlist.flatMap((one) => parseRange(one) ?? [])
  if (Result.isFailure(scopes) || ranges.length !== row.ipAllowlist.length) return undefined
  const expiresAt = row.endsAt ?? Number.POSITIVE_INFINITY
  return { id, hash: fromHex(row.hash), actor, chain, roles, scopes: scopes.success, ranges, expiresAt, isRevoked }
}

const decodeDefinition = Schema.decodeUnknownResult(ServedDefinition, strictly)
const decoded = new WeakMap<DefinitionRow, Result.Result<ServedDefinition, string>>()

/** The definition that a row serves, decoded once; the fault is for the log. */
export const servedBy = (row: DefinitionRow): Result.Result<ServedDefinition, string> => {
  const known = decoded.get(row)
  if (known !== undefined) return known
  const { chain, generation, id, path, serving, storage } = row
  const { face, ...rest } = row.rest
  const shared = face === undefined ? {} : { face: parsed(face) }
  const made =
    serving === undefined
      ? Result.fail("nothing is served")
      : Result.mapError(
          decodeDefinition({ id, path, chain, storage, generation, ...rest, ...shared, spec: parsed(serving) }),
          (error) => error.message
        )
  decoded.set(row, made)
  return made
}
