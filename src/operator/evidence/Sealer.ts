/**
 * Seals the audit log: appends the new entries of all lanes to one RFC 6962 tree and signs its head, every ten seconds
 * while there is something new (audit.md).
 *
 * Two steps, each one transaction that holds the operator's term: entries become leaves inside Postgres, from the log
 * itself, and the head of what is there is computed here a second time, shown to extend the last one that was signed, and
 * signed. Killed between any two statements, the next round goes on from what was committed: there is nothing to repair.
 *
 * It signs nothing while the tree does not extend a checkpoint that is outside (`rolled_back`), and nothing without a key.
 */
import { Clock, Config, Effect, Layer, Metric, Result, Schedule, type Scope } from "effect"
import { type Checkpoint, formatCheckpoint, verifyCheckpoint } from "../../domain/Checkpoint.ts"
import { isSameKey } from "../../domain/NoteKey.ts"
import { epochOf, originOf } from "../../domain/Restored.ts"
import { signNote } from "../../domain/SignedNote.ts"
import { rootFromTiles, tilesForAll, tilesForConsistency, tilesForRoot } from "../../domain/Tiles.ts"
import { consistencyProof, sameHash, verifyConsistency } from "../../domain/TreeProof.ts"
import { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { type KeptCheckpoint, newestCheckpoint, tilesOf, treeSize } from "../../postgres/Evidence.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { asSealer } from "../../postgres/SealerTx.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, type Superseded } from "../state/Fence.ts"
import { say } from "../state/InstallationConditions.ts"
import { type AuditKeys, AuditKeyUnusable, readAuditKeys, verifiersOf } from "./AuditKeys.ts"
import {
  extendsOutside,
  type OutsideUnreadable,
  outsideFiles,
  RolledBack,
  requirePublished
} from "./OutsideCheckpoint.ts"
import * as Publisher from "./Publisher.ts"
import { witnessSettings } from "./Witness.ts"

/** Entries of one transaction: what bounds its memory, in Postgres, to a few megabytes. */
export const defaultBatch = 20_000
const roundEvery = "10 seconds"
const recheckEvery = "1 minute"

export interface SealerSettings extends Publisher.Targets {
  /** A file with a checkpoint that this log must extend, besides what is published. */
  readonly outside: string | undefined
  readonly batch?: number | undefined
}

const optional = (name: Config.Config<string>) => Config.map(Config.withDefault(name, ""), (text) => text || undefined)

/** `VELOCITY_AUDIT_PUBLISH_DIR`, `VELOCITY_AUDIT_WITNESSES`, `VELOCITY_AUDIT_OUTSIDE_CHECKPOINT`. */
export const sealerSettings: Config.Config<SealerSettings> = Config.all({
  publishDir: optional(Config.String("VELOCITY_AUDIT_PUBLISH_DIR")),
  witnesses: witnessSettings,
  outside: optional(Config.String("VELOCITY_AUDIT_OUTSIDE_CHECKPOINT"))
})

/** What the sealer is doing; the metric `velocity_audit_sealer_state` is 1 for the one that holds. */
export const sealerStates = ["no_key", "unusable_key", "unknown_outside", "rolled_back", "sealing", "stopped"] as const
export type SealerState = (typeof sealerStates)[number]

const stateGauge = Metric.gauge("velocity_audit_sealer_state", {
  description: "1 for what the sealer is doing: sealing, or why it is not"
})
const sealedCounter = Metric.counter("velocity_audit_sealed_entries_total", {
  description: "Entries that became leaves of the tree",
  incremental: true
})
const sizeGauge = Metric.gauge("velocity_audit_checkpoint_size", {
  description: "Leaves of the last signed checkpoint"
})
const sealedTimeGauge = Metric.gauge("velocity_audit_sealed_timestamp_seconds", {
  description: "When a round last ended well, in seconds since 1970: what was committed before it is sealed"
})
const brokenGauge = Metric.gauge("velocity_audit_broken_lanes", {
  description: "Lanes whose next entry does not follow their last leaf, and which wait"
})

const measured = (state: SealerState): Effect.Effect<void> =>
  Effect.forEach(
    sealerStates,
    (one) => Metric.update(Metric.withAttributes(stateGauge, { state: one }), one === state ? 1 : 0),
    { discard: true }
  )

const conditionReasons: Readonly<Record<Exclude<SealerState, "stopped">, string>> = {
  no_key: "NoKey",
  unusable_key: "UnusableKey",
  unknown_outside: "UnknownOutside",
  rolled_back: "RolledBack",
  sealing: "Sealing"
}

/** Tells what the sealer does, as a metric and as a condition of the installation. */
const entered = (
  state: Exclude<SealerState, "stopped">,
  message = "heads of the log's tree are signed"
): Effect.Effect<void, never, Fence> =>
  Effect.andThen(
    measured(state),
    say({
      type: "AuditSealed",
      status: state === "sealing" ? "True" : "False",
      reason: conditionReasons[state],
      message
    })
  )

const appendSql =
  "select size::text as size, taken, chain, lane::int4 as lane, broken::text as broken from platform.audit_seal_append($1::int8, $2::int4, $3, $4::int2)"

interface Appended {
  readonly taken: number
  readonly next: { readonly chain: string; readonly lane: number } | undefined
  readonly broken: ReadonlyArray<{ readonly chain: string; readonly lane: number; readonly seq: number }>
}

/** One batch, from a lane on. */
const append = Effect.fnUntraced(function* (tx: Tx, batch: number, from: Appended["next"]) {
  const size = yield* treeSize(tx)
  const { rows } = yield* tx.query(statement(appendSql, [String(size), batch, from?.chain ?? null, from?.lane ?? null]))
  const [row] = rows
  return {
    taken: Number(row?.taken ?? 0),
    next: typeof row?.chain === "string" ? { chain: row.chain, lane: Number(row.lane) } : undefined,
    broken: JSON.parse(String(row?.broken ?? "[]")) as Appended["broken"]
  } satisfies Appended
})

/** What this process has signed last: a database that forgets it was rolled back under us. */
interface Signed {
  readonly epoch: number
  readonly size: number
  readonly root: Uint8Array
}

const damaged = (cause: unknown) =>
  new RolledBack({ message: `the tree in this database is damaged: ${(cause as Error).message}` })

/** The head of the tree as it is now, shown to extend what was signed before. */
const headNow = Effect.fnUntraced(function* (tx: Tx, size: number, before: ReadonlyArray<Signed>) {
  for (const one of before) {
    if (one.size > size) {
      const message = `a checkpoint of ${one.size} leaves was signed, and the tree has ${size}`
      return yield* new RolledBack({ message })
    }
  }
  const tiles = yield* tilesOf(
    tx,
    tilesForAll(tilesForRoot(size), ...before.map((one) => tilesForConsistency(one.size, size)))
  )
  const { root, grew } = yield* Effect.try({
    try: () => {
      const root = rootFromTiles(size, tiles)
      const grew = before.every((one) =>
        verifyConsistency(one.size, one.root, size, root, consistencyProof(one.size, size, tiles))
      )
      return { root, grew }
    },
    catch: damaged
  })
  if (grew) return root
  return yield* new RolledBack({
    message: `the tree of ${size} leaves does not extend the checkpoint signed before it`
  })
})

const addSql = "select platform.audit_checkpoint_add($1::int4, $2::int8, $3, decode($4, 'hex'), $5) as added"

/** Signs a checkpoint of the tree and keeps it, or its signatures where it is kept. As the sealer. */
export const keepCheckpoint = Effect.fnUntraced(function* (
  tx: Tx,
  keys: AuditKeys,
  epoch: number,
  checkpoint: Checkpoint
) {
  const [first, ...more] = keys.signers
  const note = yield* Effect.promise(() => signNote(formatCheckpoint(checkpoint), first, ...more))
  const { origin, root, size } = checkpoint
  yield* tx.query(statement(addSql, [epoch, String(size), origin, Buffer.from(root).toString("hex"), note]))
  return { epoch, size, origin, root, note, cosignatures: "" } satisfies KeptCheckpoint
})

/**
 * What a kept checkpoint says where one of our keys has signed it and another has not. A key that joins while nothing is
 * written signs what stands: else the one that leaves takes with it the only signature that the log's newest word has.
 */
const unsignedOf = Effect.fnUntraced(function* (keys: AuditKeys, { note, origin, root, size }: KeptCheckpoint) {
  const verified = yield* Effect.promise(() => verifyCheckpoint(note, verifiersOf(keys)))
  // what none of them signed is not ours to confirm: it stands in the database, and its owner may have put it there
  if (Result.isFailure(verified)) return undefined
  const { checkpoint, signers } = verified.success
  const isWhole = keys.signers.every((key) => signers.some((signer) => isSameKey(signer, key)))
  const isKept = checkpoint.origin === origin && checkpoint.size === size && sameHash(checkpoint.root, root)
  return isWhole || !isKept ? undefined : checkpoint
})

/** A sealer over the operator's term. */
export interface Sealer {
  /** Compares the tree with every checkpoint that is outside. Witnesses that do not answer are passed over. */
  readonly check: (
    keys: AuditKeys
  ) => Effect.Effect<void, RolledBack | OutsideUnreadable | AuditKeyUnusable | DatabaseFailure | Superseded>
  /**
   * Appends what is new, in batches, and signs the head if it has moved, or if a key has not signed it yet; answers the
   * checkpoint that was made. What it answers is committed and handed to the publisher.
   */
  readonly round: (
    keys: AuditKeys
  ) => Effect.Effect<KeptCheckpoint | undefined, RolledBack | AuditKeyUnusable | DatabaseFailure | Superseded>
}

/** See `Sealer`. Publishes for as long as the scope is open. */
export const make = Effect.fnUntraced(function* (
  settings: SealerSettings
): Effect.fn.Return<Sealer, never, Fence | Scope.Scope> {
  const fence = yield* Fence
  const batch = settings.batch ?? defaultBatch
  let signed: Signed | undefined
  let conflict: { readonly origin: string; readonly found: RolledBack } | undefined
  let origin = ""
  const publisher = yield* Publisher.make(settings, (found) =>
    Effect.sync(() => {
      conflict = { origin, found }
    })
  )
  const transaction = <A, E>(f: (tx: Tx) => Effect.Effect<A, E>) => fence.transaction((tx) => asSealer(tx, f))

  const standing = (newest: KeptCheckpoint | undefined, keys: AuditKeys) => {
    if (newest !== undefined && epochOf(keys.name, newest.origin) === undefined) {
      const message = `the audit key is called ${keys.name}, and this log's origin is ${newest.origin}: velocity audit keygen --name ${newest.origin.replace(/\/[0-9]+$/u, "")}`
      return Effect.fail(new AuditKeyUnusable({ message }))
    }
    return Effect.succeed({ epoch: newest?.epoch ?? 1, origin: newest?.origin ?? originOf(keys.name, 1) })
  }

  const check: Sealer["check"] = Effect.fnUntraced(function* (keys) {
    const { given, published } = yield* outsideFiles(settings)
    const newest = yield* fence.read((tx) =>
      asSealer(tx, (inner) =>
        Effect.gen(function* () {
          const found = yield* newestCheckpoint(inner)
          yield* standing(found, keys)
          if (settings.publishDir !== undefined) yield* requirePublished(inner, settings.publishDir, published)
          for (const file of [published, given]) if (file !== undefined) yield* extendsOutside(inner, keys, file)
          if (found !== undefined) yield* headNow(inner, yield* treeSize(inner), [found])
          return found
        })
      )
    )
    // what an earlier epoch's origin was accused of, a restore note has answered
    if (conflict !== undefined && newest?.origin !== conflict.origin) conflict = undefined
    if (signed !== undefined && newest !== undefined && newest.epoch > signed.epoch) signed = undefined
    if (newest === undefined) return
    origin = newest.origin
    let silent = false
    for (const witness of settings.witnesses) {
      yield* Publisher.publishToWitness(witness, settings.witnesses, newest, 0).pipe(
        Effect.provideService(Fence, fence),
        Effect.catchTag("PublicationFailed", ({ message }) => {
          silent = true
          return Effect.logWarning(message)
        })
      )
    }
    // what a witness said is not forgotten because it cannot be asked again
    if (conflict !== undefined && silent) return yield* conflict.found
    conflict = undefined
    yield* publisher.offer(newest)
  })

  const appendAll = Effect.fnUntraced(function* () {
    let from: Appended["next"]
    let broken: Appended["broken"] = []
    do {
      const at = from
      const done: Appended = yield* transaction((tx) => append(tx, batch, at))
      if (done.taken > 0) yield* Metric.update(sealedCounter, done.taken)
      broken = [...broken, ...done.broken]
      from = done.next
    } while (from !== undefined)
    yield* Metric.update(brokenGauge, broken.length)
    for (const { chain, lane, seq } of broken) {
      yield* Effect.logError(
        `entry ${seq} of ${chain}, lane ${lane}, is not in the log, and later ones are: the lane is not sealed; type velocity audit verify`
      )
    }
  })

  const round: Sealer["round"] = Effect.fnUntraced(function* (keys) {
    if (conflict !== undefined) return yield* conflict.found
    const last = signed
    // before anything is put behind it
    if (last !== undefined) {
      yield* fence.read((tx) =>
        asSealer(tx, (inner) => Effect.flatMap(treeSize(inner), (size) => headNow(inner, size, [last])))
      )
    }
    yield* appendAll()
    const made = yield* transaction((tx) =>
      Effect.gen(function* () {
        const newest = yield* newestCheckpoint(tx)
        const { epoch, origin } = yield* standing(newest, keys)
        const mine = signed?.epoch === epoch ? signed : undefined
        const size = yield* treeSize(tx)
        const before = [newest, mine].filter((one) => one !== undefined)
        const unchanged =
          newest?.size === size && (mine === undefined || (mine.size === size && sameHash(mine.root, newest.root)))
        const unsigned = unchanged && newest !== undefined ? yield* unsignedOf(keys, newest) : undefined
        if (unchanged && unsigned === undefined) return undefined
        if (size === 0 && newest === undefined && mine === undefined) return undefined
        const root = yield* headNow(tx, size, before)
        if (unsigned !== undefined) {
          yield* keepCheckpoint(tx, keys, epoch, unsigned)
          return yield* newestCheckpoint(tx)
        }
        if (newest?.size === size) return undefined
        return yield* keepCheckpoint(tx, keys, epoch, { origin, size, root, extensions: [] })
      })
    )
    if (made === undefined) return undefined
    signed = made
    origin = made.origin
    yield* Metric.update(sizeGauge, made.size)
    yield* publisher.offer(made)
    return made
  })

  return { check, round }
})

const restoreHint =
  "If it was restored, or failed over, from an older copy: velocity audit restore-note --checkpoint FILE --reason TEXT. If not, the log was rewritten: keep both, and ask velocity audit verify --checkpoint FILE"

const keyless =
  "the audit log is not sealed: no VELOCITY_AUDIT_KEY_FILE; velocity audit keygen --name example.com/velocity --out FILE makes a key"

/** Seals until another operator takes over; without a key says so once, and does nothing. */
export const run = Effect.fnUntraced(function* (settings: SealerSettings) {
  const sealer = yield* make(settings)
  const held = (state: Exclude<SealerState, "stopped">, message: string) =>
    Effect.andThen(entered(state, message), Effect.logError(message))
  /** Checks, then rounds, until something is wrong; a database that does not answer is only waited for. */
  const serve = Effect.gen(function* () {
    const keys = yield* readAuditKeys
    if (keys === undefined) {
      yield* entered("no_key", keyless)
      yield* Effect.logInfo(keyless)
      return
    }
    yield* sealer.check(keys)
    yield* entered("sealing")
    yield* sealer.round(keys).pipe(
      Effect.tap(Effect.flatMap(Clock.currentTimeMillis, (now) => Metric.update(sealedTimeGauge, now / 1000))),
      Effect.catchIf(
        (error): error is DatabaseFailure => error instanceof DatabaseFailure,
        (error) => Effect.logWarning("the audit log could not be sealed, and is tried again", error)
      ),
      Effect.repeat(Schedule.spaced(roundEvery))
    )
  })
  yield* serve.pipe(
    Effect.tapError((error) => {
      switch (error._tag) {
        case "RolledBack":
          return held(
            "rolled_back",
            `the audit log is rolled back, and nothing is signed: ${error.message}. ${restoreHint}`
          )
        case "OutsideUnreadable":
          return held("unknown_outside", `the audit log is not sealed: ${error.message}`)
        case "AuditKeyUnusable":
          return held("unusable_key", `the audit log is not sealed: ${error.message}`)
        case "Superseded":
          return measured("stopped")
        default:
          return Effect.logWarning("the audit log could not be sealed, and is tried again", error)
      }
    }),
    Effect.retry({ schedule: Schedule.spaced(recheckEvery), while: (error) => error._tag !== "Superseded" }),
    Effect.catchCause((cause) => Effect.logError("the sealer has ended", cause))
  )
}, Effect.scoped)

/** Runs the sealer for as long as the layer lives. */
export const layer = Layer.effectDiscard(Effect.flatMap(sealerSettings, (settings) => Effect.forkScoped(run(settings))))
