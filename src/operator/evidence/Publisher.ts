/**
 * Takes checkpoints to where the database's owner does not reach: a folder, and witnesses. Each target has a fiber of its
 * own that only ever wants the newest one, tries until it has it, and holds up neither sealing nor another target.
 *
 * Cosignatures of witnesses are kept with the checkpoint in the database, and the folder is given the checkpoint again with
 * them.
 */
import { Effect, Metric, Queue, Schedule, type Scope } from "effect"
import { tilesForConsistency } from "../../domain/Tiles.ts"
import { consistencyProof } from "../../domain/TreeProof.ts"
import { type KeptCheckpoint, tilesOf, treeSize } from "../../postgres/Evidence.ts"
import { asSealer } from "../../postgres/SealerTx.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, Superseded } from "../state/Fence.ts"
import { RolledBack } from "./OutsideCheckpoint.ts"
import { PublicationFailed, publishToFolder } from "./PublicationFolder.ts"
import { submit, type Witness } from "./Witness.ts"

/** Where checkpoints go. */
export interface Targets {
  readonly publishDir: string | undefined
  readonly witnesses: ReadonlyArray<Witness>
}

const publishedGauge = Metric.gauge("velocity_audit_published_size", {
  description: "Leaves of the last checkpoint that a target has, by target"
})
const failuresCounter = Metric.counter("velocity_audit_publication_failures_total", {
  description: "Attempts to publish a checkpoint that failed, by target",
  incremental: true
})

/** From a second to a minute between attempts. */
const backoff = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("1 minute")]).pipe(Schedule.jittered)

const cosignedSql = "select platform.audit_checkpoint_cosigned($1::int4, $2::int8, $3) as cosignatures"

/**
 * Submits a kept checkpoint to one of the witnesses and keeps its cosignatures. Answers all that the checkpoint has then,
 * and the size that the witness has.
 */
export const publishToWitness = Effect.fnUntraced(function* (
  witness: Witness,
  witnesses: ReadonlyArray<Witness>,
  checkpoint: KeptCheckpoint,
  known: number
) {
  const fence = yield* Fence
  const reading = <A, E>(f: Parameters<typeof asSealer<A, E, never>>[1]) => fence.read((tx) => asSealer(tx, f))
  const { epoch, note, size } = checkpoint
  const { lines, size: seen } = yield* submit({
    witness,
    witnessKeys: witnesses.flatMap(({ keys }) => keys),
    note,
    size,
    known,
    tree: reading(treeSize),
    proof: (from) =>
      reading((tx) =>
        Effect.map(tilesOf(tx, tilesForConsistency(from, size)), (tiles) => consistencyProof(from, size, tiles))
      )
  }).pipe(
    Effect.catchTag("WitnessConflict", ({ message }) => Effect.fail(new RolledBack({ message }))),
    Effect.catchTag("WitnessFailure", ({ message }) => Effect.fail(new PublicationFailed({ message })))
  )
  if (lines.length === 0) return { cosignatures: checkpoint.cosignatures, seen }
  const text = lines.map((line) => `${line}\n`).join("")
  const { rows } = yield* fence.transaction((tx) =>
    asSealer(tx, (inner) => inner.query(statement(cosignedSql, [epoch, String(size), text])))
  )
  return { cosignatures: String(rows[0]?.cosignatures ?? ""), seen }
})

/** What takes checkpoints away. */
export interface Publisher {
  /** Hands over a committed checkpoint; it replaces one that waits. */
  readonly offer: (checkpoint: KeptCheckpoint) => Effect.Effect<void>
}

/**
 * Starts a fiber for each target, for as long as the scope is open. `conflict` is told when a witness has seen a tree that
 * ours does not extend.
 */
export const make = Effect.fnUntraced(function* (
  { publishDir, witnesses }: Targets,
  conflict: (found: RolledBack) => Effect.Effect<void>
): Effect.fn.Return<Publisher, never, Fence | Scope.Scope> {
  const fence = yield* Fence
  const queues: Array<Queue.Queue<KeptCheckpoint>> = []
  /** What was handed over last. */
  let newest: KeptCheckpoint | undefined

  /** Takes the newest there is to `attempt`, again until it succeeds or a newer one comes. */
  const target = Effect.fnUntraced(function* <E extends { readonly message: string }>(
    name: string,
    attempt: (checkpoint: KeptCheckpoint) => Effect.Effect<void, E>
  ) {
    const queue = yield* Queue.sliding<KeptCheckpoint>(1)
    queues.push(queue)
    const failures = Metric.withAttributes(failuresCounter, { target: name })
    const published = Metric.withAttributes(publishedGauge, { target: name })
    yield* Queue.take(queue).pipe(
      Effect.flatMap((checkpoint) =>
        attempt(checkpoint).pipe(
          Effect.tapError((error) =>
            Effect.andThen(
              Metric.update(failures, 1),
              Effect.logWarning(`the checkpoint of ${checkpoint.size} leaves is not published: ${error.message}`)
            )
          ),
          // whoever has no term any more has nothing to publish
          Effect.retry({
            schedule: backoff,
            while: (error) => !(error instanceof Superseded) && Queue.sizeUnsafe(queue) === 0
          }),
          Effect.andThen(Metric.update(published, checkpoint.size)),
          Effect.ignoreCause
        )
      ),
      Effect.forever,
      Effect.forkScoped
    )
    return queue
  })

  const folder =
    publishDir === undefined
      ? undefined
      : yield* target("folder", (checkpoint) =>
          Effect.provideService(publishToFolder(publishDir, checkpoint), Fence, fence)
        )
  for (const witness of witnesses) {
    let known = { epoch: 0, size: 0 }
    yield* target(witness.url, (checkpoint) =>
      Effect.gen(function* () {
        const size = known.epoch === checkpoint.epoch ? known.size : 0
        const { cosignatures, seen } = yield* publishToWitness(witness, witnesses, checkpoint, size)
        known = { epoch: checkpoint.epoch, size: seen }
        // the folder gets it again with what was cosigned, in place of one without that waits there; never an older one
        if (folder !== undefined && newest === checkpoint && cosignatures !== checkpoint.cosignatures) {
          yield* Queue.offer(folder, { ...checkpoint, cosignatures })
        }
      }).pipe(
        Effect.provideService(Fence, fence),
        Effect.catchTag("RolledBack", (found) => conflict(found))
      )
    )
  }
  return {
    offer: (checkpoint) =>
      Effect.suspend(() => {
        newest = checkpoint
        return Effect.forEach(queues, (queue) => Queue.offer(queue, checkpoint), { discard: true })
      })
  }
})
