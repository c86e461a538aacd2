/**
 * This process as one of the API's replicas: what the operator's condition `Serving` is made of (fine print 10).
 *
 * Each definition that the registry takes in is compiled and tried out, and its generation acknowledged with what was
 * found; one that is withdrawn is acknowledged too, since nothing is dropped before. What is new is said at once and many
 * in one statement; then nothing is written but a heartbeat. A replica whose isolation gate is closed serves nothing, and
 * takes itself out until it is open again.
 */
import { randomBytes } from "node:crypto"
import { hostname } from "node:os"
import { Clock, Config, Context, Duration, Effect, Latch, Layer, Stream } from "effect"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { type Ack, RegistryAcks } from "../postgres/RegistryAcks.ts"
import { isRefusal, ProbeRecords } from "../records/ProbeRecords.ts"
import { IsolationGate } from "./IsolationGate.ts"
import { type RegisteredDefinition, Registry } from "./Registry.ts"

/** How often it is said that this replica is alive; one that was not heard of for three of these is dead. */
const beat = Duration.seconds(30)
/** When what failed is tried again. */
const soon = Duration.seconds(1)
/** Acknowledgements in one statement. */
const batch = 200
/** How long saying goodbye may take. */
const farewell = Duration.seconds(2)

/** `VELOCITY_REPLICA`: how this replica is called in conditions; no two that are alive may be called alike. */
export const replicaName: Config.Config<string> = Config.String("VELOCITY_REPLICA").pipe(
  Config.withDefault(""),
  Config.map((name) => (name === "" ? `${hostname()}-${randomBytes(4).toString("hex")}` : name)),
  Config.map((name) => name.replaceAll(/[^!-~]/gu, "_").slice(0, 253))
)

/** See the module. */
export class Replica extends Context.Service<Replica, { readonly name: string }>()("velocity/server/Replica") {
  static readonly layerNoDeps = Layer.effect(
    Replica,
    Effect.suspend(() => make)
  )
}

/** What Postgres said, for whoever reads the condition. */
const refusalOf = (failure: DatabaseFailure): string =>
  failure.reason.cause instanceof Error ? failure.reason.cause.message : failure.message

const make = Effect.gen(function* () {
  const registry = yield* Registry
  const gate = yield* IsolationGate
  const acks = yield* RegistryAcks
  const { probe } = yield* ProbeRecords
  const name = yield* replicaName

  /** What was found, by definition, and what of it the database was told. */
  const found = new Map<number, Ack>()
  const told = new Map<number, Ack>()
  const wake = Latch.makeUnsafe(true)

  const tell = Effect.suspend(() => {
    const news = [...found.values()].filter((ack) => told.get(ack.definition) !== ack)
    return Effect.forEach(
      Array.from({ length: Math.ceil(news.length / batch) }, (_, index) =>
        news.slice(index * batch, (index + 1) * batch)
      ),
      (some) =>
        Effect.andThen(
          acks.acknowledge(name, some),
          Effect.sync(() => {
            for (const ack of some) told.set(ack.definition, ack)
          })
        ),
      { discard: true }
    )
  })

  /** Whether another generation is in force than the one that was tried, as the database says now. */
  const isOver = ({ generation, id, path }: RegisteredDefinition) =>
    Effect.map(Effect.ignore(registry.refresh(path)), () =>
      registry.definitions().every((one) => one.id !== id || one.generation !== generation)
    )

  /** What was found of a definition; undefined where it is another meanwhile, which comes with the registry's next change. */
  const judged = Effect.fnUntraced(function* (definition: RegisteredDefinition) {
    const { generation, id, path } = definition
    const ack = (problem: string | undefined): Ack => ({ definition: id, generation, problem })
    if (!definition.serving) return ack(undefined)
    const type = registry.peers(path)
    // why is for the log, where the registry writes it
    if (type === undefined) return (yield* isOver(definition)) ? undefined : ack("the definition cannot be compiled")
    if (type.generation !== generation) return undefined
    return yield* probe(type, registry.peers).pipe(
      Effect.as(ack(undefined)),
      Effect.catchIf(isRefusal, (failure) =>
        Effect.map(isOver(definition), (over) => (over ? undefined : ack(refusalOf(failure))))
      )
    )
  })

  /** Judges what is new, and `again` what had a problem, and tells what was found. */
  const look = Effect.fnUntraced(function* (again: boolean) {
    const definitions = registry.definitions()
    const there = new Set(definitions.map((one) => one.id))
    for (const id of found.keys()) if (!there.has(id)) found.delete(id)
    let untold = 0
    for (const definition of definitions) {
      const before = found.get(definition.id)
      if (before?.generation === definition.generation && !(again && before.problem !== undefined)) continue
      const ack = yield* judged(definition)
      if (ack === undefined || (ack.generation === before?.generation && ack.problem === before.problem)) continue
      found.set(ack.definition, ack)
      untold += 1
      if (untold % batch === 0) yield* tell
    }
    yield* tell
  })

  /** Says that this replica is alive, and everything that it found to a database that has forgotten it. */
  const alive = Effect.gen(function* () {
    if (yield* acks.beat(name)) return
    told.clear()
    yield* tell
    yield* acks.beat(name)
  })

  let isIn = false
  const leave = acks.leave(name).pipe(
    Effect.andThen(
      Effect.sync(() => {
        isIn = false
        told.clear()
      })
    )
  )

  let failures = 0
  let due = 0
  /** One turn; answers how long to wait for the next, unless something changes before. */
  const turn = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const { loaded } = yield* registry.state
    if (gate.closed() !== undefined || !loaded) {
      if (isIn) yield* leave
      return soon
    }
    // what an earlier process of this name has left
    if (!isIn) yield* acks.leave(name)
    const isTime = !isIn || now >= due
    isIn = true
    yield* look(isTime)
    if (isTime) {
      yield* alive
      due = now + Duration.toMillis(beat)
    }
    failures = 0
    return Duration.millis(Math.max(due - (yield* Clock.currentTimeMillis), 0))
  }).pipe(
    Effect.catch((failure) =>
      Effect.gen(function* () {
        failures += 1
        if (failures === 1) yield* Effect.logWarning("what is served cannot be acknowledged", failure)
        return soon
      })
    )
  )

  yield* registry.changes.pipe(
    Stream.runForEach(({ definitions }) => (definitions.length > 0 ? wake.open : Effect.void)),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Effect.addFinalizer(() => (isIn ? Effect.ignore(Effect.timeout(acks.leave(name), farewell)) : Effect.void))
  yield* Effect.gen(function* () {
    for (;;) {
      yield* wake.close
      const wait = yield* turn
      yield* Effect.raceFirst(wake.await, Effect.sleep(wait))
    }
  }).pipe(Effect.forkScoped)
  return Replica.of({ name })
})
