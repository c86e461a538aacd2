/**
 * The registry: everything a replica must know to serve a request, in memory, a moment old at most.
 *
 * It is fed by LISTEN on `velocity_registry`, whose payloads are only hints of what to read again; by a look at
 * everything each thirty seconds and after each reconnection of the listener; and by `refresh`, when the database says
 * that a definition is not what we took it for. While the database is away the last snapshot is served, and its age is
 * told; expired bindings are judged by the clock, not by a read.
 *
 * Record types are compiled when they are first asked for, at most `VELOCITY_REGISTRY_MAX` of them kept (the one used
 * longest ago leaves), and again when their definition changes.
 */
import {
  Clock,
  Config,
  Context,
  Duration,
  Effect,
  Exit,
  Latch,
  Layer,
  Metric,
  Option,
  PubSub,
  Random,
  Result,
  Stream
} from "effect"
import * as Deferred from "effect/Deferred"
import { StrategySource } from "../access/Authenticator.ts"
import { type Binding, platformChain } from "../access/Authorization.ts"
import { KeySource } from "../access/KeyAuthenticator.ts"
import { defaultTimings, type KeySetTimings } from "../access/KeySet.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { GatewayTx } from "../postgres/GatewayTx.ts"
import { Listener } from "../postgres/Listener.ts"
import { duration, listenUrl } from "../postgres/PgSettings.ts"
import { compile, type RecordType } from "../records/type/RecordType.ts"
import { CompiledTypes } from "./CompiledTypes.ts"
import { type Hint, type Known, look, maxHints, nothingKnown } from "./RegistryReads.ts"
import { indexOf, servedBy, strategyOf, versionOf } from "./RegistrySnapshot.ts"

/** What changed from one snapshot to the next. */
export interface RegistryChange {
  /** Paths of definitions that came, went, or are served otherwise. */
  readonly definitions: ReadonlyArray<string>
  /** Whether strategies, or the trust of domains in them, changed. */
  readonly strategies: boolean
  readonly bindings: boolean
  readonly keys: boolean
  readonly revocations: boolean
}

/** How the registry is doing, for readiness and for people. */
export interface RegistryState {
  /** Whether everything was read at least once. */
  readonly loaded: boolean
  /** Seconds since everything was last known to be as the database says; infinite before the first time. */
  readonly age: number
  readonly definitions: number
  readonly compiled: number
}

/** A definition as `/api/platform/schemas` lists it. */
export interface RegisteredDefinition {
  readonly id: number
  readonly path: string
  readonly chain: string
  readonly generation: number
  readonly serving: boolean
}

/** The channel of hints. */
export const registryChannel = "velocity_registry"

const ageGauge = Metric.gauge("velocity_registry_age_seconds", {
  description: "Seconds since the registry was last known to agree with the database"
})
const definitionsGauge = Metric.gauge("velocity_registry_definitions", { description: "Definitions that are served" })
const compiledGauge = Metric.gauge("velocity_registry_compiled", { description: "Record types that are compiled" })

const noStrategies: ReadonlyArray<string> = []
const noBindings: ReadonlyArray<Binding> = []

/** Waits after a failed look, doubling, in milliseconds. */
const firstWait = 100
const lastWait = 5_000

/** One look that somebody waits for; hints that come while another runs gather in the next. */
class Batch {
  readonly hints = new Set<Hint>()
  readonly done = Deferred.makeUnsafe<void, DatabaseFailure>()
  everything = false
}

/** See the module. */
export class Registry extends Context.Service<
  Registry,
  {
    /**
     * The record type at a path. Fails with 404 `not_found`, 410 `gone` where its definition was deleted, or 503
     * `not_ready` before the first read. Ask only after the caller proved who he is: the answer tells what exists.
     */
    readonly lookup: (path: string) => Effect.Effect<RecordType, Problem>
    /** The record type at a path, for refs and includes; undefined where nothing is served. */
    readonly peers: (path: string) => RecordType | undefined
    /** The path of another version of an object: the one that is named, else the newest later one, where it is served. */
    readonly successorOf: (path: string, named: string | undefined) => string | undefined
    /** Reads a definition again now: the database said that it is not what we compiled. Fails with 503 `unavailable`. */
    readonly refresh: (path: string) => Effect.Effect<void, Problem>
    /** Looks at everything now; fails as the database does. */
    readonly reload: Effect.Effect<void, DatabaseFailure>
    /**
     * The ids of the strategies that a domain trusts, of a composite its members; none where it does not exist. For
     * `platform` those of `VELOCITY_PLATFORM_STRATEGY`, whose tokens and keys alone may carry platform roles.
     */
    readonly strategiesOf: (chain: string) => ReadonlyArray<string>
    /** The bindings of an actor in a domain, expired ones among them: `Authorization` judges them by the clock. */
    readonly bindingsOf: (actor: string, chain: string) => ReadonlyArray<Binding>
    readonly definitions: () => ReadonlyArray<RegisteredDefinition>
    /** One element for each change, from now on. */
    readonly changes: Stream.Stream<RegistryChange>
    readonly state: Effect.Effect<RegistryState>
  }
>()("velocity/server/Registry") {
  /**
   * With settings: `VELOCITY_REGISTRY_MAX` compiled record types (2,000), `VELOCITY_REGISTRY_POLL` between two looks at
   * everything (30s; 1s behind a pooler, where nothing can be listened to), `VELOCITY_PLATFORM_STRATEGY` (platform).
   * The layer waits for the first look, and comes up without it where the database does not answer.
   */
  static readonly layerWith = (timings: KeySetTimings) =>
    Layer.effectContext(
      Effect.map(
        Effect.suspend(() => make(timings)),
        ({ keySource, registry, source }) =>
          Context.make(Registry, registry).pipe(Context.add(StrategySource, source), Context.add(KeySource, keySource))
      )
    )

  static readonly layerNoDeps = this.layerWith(defaultTimings)

  /** Over `GatewayTx.layer` and `Listener.layer`. Provides what the authenticators ask as well. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(Layer.mergeAll(GatewayTx.layer, Listener.layer)))
}

const pollInterval = Effect.gen(function* () {
  const direct = yield* listenUrl
  return yield* duration("VELOCITY_REGISTRY_POLL", Option.isSome(direct) ? 30_000 : 1_000)
})

const make = Effect.fnUntraced(function* (timings: KeySetTimings) {
  const gateway = yield* GatewayTx
  const listener = yield* Listener
  const maxCompiled = yield* Config.Int("VELOCITY_REGISTRY_MAX").pipe(Config.withDefault(2_000))
  const platformStrategy = yield* Config.String("VELOCITY_PLATFORM_STRATEGY").pipe(Config.withDefault("platform"))
  const poll = yield* pollInterval

  let known: Known = nothingKnown
  let index = indexOf(known.snapshot)
  let agreedAt = Number.NEGATIVE_INFINITY
  let pending: Batch | undefined
  const wake = Latch.makeUnsafe()
  const published = yield* PubSub.sliding<RegistryChange>(1_024)

  const types = new CompiledTypes<RecordType>(maxCompiled, (row) => Result.map(servedBy(row), compile))

  /** Puts a hint (none: everything) on the next batch. A flood of hints is one look at everything. */
  const enqueue = (hint: Hint | undefined): Batch => {
    const batch = pending ?? new Batch()
    pending = batch
    if (hint === undefined || batch.hints.size >= maxHints) batch.everything = true
    else batch.hints.add(hint)
    wake.openUnsafe()
    return batch
  }

  /** Asks for a look and waits for it; many who ask at once get one. */
  const ask = (hint: Hint | undefined): Effect.Effect<void, DatabaseFailure> =>
    Effect.suspend(() => Deferred.await(enqueue(hint).done))

  const exchange = Effect.fnUntraced(function* (next: Known) {
    const before = known
    if (next === before) return
    known = next
    index = indexOf(next.snapshot)
    const { definitions } = next.snapshot
    types.retain((row) => definitions.get(row.path) === row)
    const paths = new Set([...before.snapshot.definitions.keys(), ...definitions.keys()])
    yield* PubSub.publish(published, {
      definitions: [...paths].filter((path) => before.snapshot.definitions.get(path) !== definitions.get(path)),
      strategies:
        before.snapshot.strategies !== next.snapshot.strategies || before.snapshot.domains !== next.snapshot.domains,
      bindings: before.snapshot.bindings !== next.snapshot.bindings,
      keys: before.snapshot.keys !== next.snapshot.keys,
      revocations: before.snapshot.revoked !== next.snapshot.revoked
    })
    yield* Metric.update(definitionsGauge, [...definitions.values()].filter((row) => row.serving !== undefined).length)
  })

  const gauge = Effect.gen(function* () {
    if (agreedAt !== Number.NEGATIVE_INFINITY) {
      yield* Metric.update(ageGauge, ((yield* Clock.currentTimeMillis) - agreedAt) / 1000)
    }
    yield* Metric.update(compiledGauge, types.size)
  })

  let failures = 0
  let retrying = false
  const retryLater = Effect.suspend(() => {
    if (retrying) return Effect.void
    retrying = true
    const wait = Math.min(firstWait * 2 ** (failures - 1), lastWait)
    return Effect.asVoid(
      Effect.forkScoped(
        Effect.gen(function* () {
          yield* Effect.sleep(Duration.millis(wait * (0.75 + (yield* Random.next) / 2)))
          retrying = false
          enqueue(undefined)
        })
      )
    )
  })

  const lookOnce = Effect.gen(function* () {
    yield* wake.await
    yield* wake.close
    const batch = pending
    pending = undefined
    if (batch === undefined) return
    const began = yield* Clock.currentTimeMillis
    // after a failure nobody knows what was missed
    const scope = batch.everything || failures > 0 || agreedAt === Number.NEGATIVE_INFINITY ? "everything" : batch.hints
    const looked = yield* look(gateway, known, scope, timings).pipe(Effect.flatMap(exchange), Effect.exit)
    if (Exit.isSuccess(looked)) {
      if (scope === "everything") agreedAt = began
      failures = 0
    } else {
      failures += 1
      if (failures === 1) {
        yield* Effect.logWarning("the registry cannot be read; the last snapshot is served", looked.cause)
      }
      yield* retryLater
    }
    yield* gauge
    yield* Deferred.done(batch.done, looked)
  })

  yield* Effect.forkScoped(Effect.forever(lookOnce))
  yield* listener.listen(registryChannel).pipe(
    Stream.runForEach((heard) => Effect.sync(() => enqueue(heard._tag === "Reconnected" ? undefined : heard.payload))),
    Effect.forkScoped
  )
  yield* Effect.sync(() => enqueue(undefined)).pipe(
    Effect.andThen(Effect.sleep(Duration.millis(poll))),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.ignore(ask(undefined))

  const complained = new WeakSet<object>()
  const compiledAt = Effect.fnUntraced(function* (path: string) {
    if (agreedAt === Number.NEGATIVE_INFINITY) {
      return yield* problem("not_ready", {
        detail: "the definitions have not been read yet",
        headers: { "Retry-After": "1" }
      })
    }
    const row = known.snapshot.definitions.get(path)
    if (row === undefined || (row.serving === undefined && !row.withdrawn)) return yield* problem("not_found")
    if (row.serving === undefined) return yield* problem("gone")
    const compiled = types.get(row)
    if (Result.isSuccess(compiled)) return compiled.success
    if (!complained.has(row)) {
      complained.add(row)
      yield* Effect.logError(`${path} cannot be served: ${compiled.failure}`)
    }
    return yield* problem("not_ready", { detail: "this definition cannot be served by this replica" })
  })

  const peers = (path: string): RecordType | undefined => {
    const row = known.snapshot.definitions.get(path)
    if (row?.serving === undefined) return undefined
    const compiled = types.get(row)
    return Result.isSuccess(compiled) ? compiled.success : undefined
  }

  const changes = Stream.fromPubSub(published)
  const registry = Registry.of({
    lookup: (path) => {
      const type = peers(path)
      return type === undefined ? compiledAt(path) : Effect.succeed(type)
    },
    peers,
    successorOf: (path, named) => {
      const [object, version] = versionOf(path)
      const newest = index.newest.get(object) ?? 0
      const found = `${object}/${named ?? `v${newest}`}`
      return (named === undefined && newest <= version) || known.snapshot.definitions.get(found)?.serving === undefined
        ? undefined
        : found
    },
    refresh: (path) =>
      Effect.mapError(ask(`def:${path}`), (cause) =>
        problem("unavailable", { headers: { "Retry-After": "1" }, cause })
      ),
    reload: ask(undefined),
    strategiesOf: (chain) =>
      chain === platformChain
        ? (index.composites.get(platformStrategy) ?? [platformStrategy])
        : (index.trusted.get(chain) ?? noStrategies),
    bindingsOf: (actor, chain) => known.snapshot.bindings.get(chain)?.get(actor) ?? noBindings,
    definitions: () =>
      [...known.snapshot.definitions.values()].map(({ chain, generation, id, path, serving }) => ({
        id,
        path,
        chain,
        generation,
        serving: serving !== undefined
      })),
    changes,
    state: Effect.map(Clock.currentTimeMillis, (now) => ({
      loaded: agreedAt !== Number.NEGATIVE_INFINITY,
      age: (now - agreedAt) / 1000,
      definitions: known.snapshot.definitions.size,
      compiled: types.size
    }))
  })
  const source = StrategySource.of({
    strategy: (id) => strategyOf(known.snapshot, id),
    issuedBy: (issuer) => index.issuedBy.get(issuer) ?? [],
    isRevoked: (actor) => known.snapshot.revoked.has(actor),
    accessChanges: changes.pipe(
      Stream.filter((change) => change.strategies || change.revocations),
      Stream.map(() => undefined)
    )
  })
  const keySource = KeySource.of({
    isLoaded: () => agreedAt !== Number.NEGATIVE_INFINITY,
    key: (hash) => known.snapshot.keys.get(hash),
    strategy: source.strategy,
    isRevoked: source.isRevoked
  })
  return { registry, source, keySource }
})
