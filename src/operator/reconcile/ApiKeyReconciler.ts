/**
 * The keys of an ApiKey: one in force, delivered once, and after a rotation the one of before for as long as the overlap
 * lasts. What is wanted is read from the resource, what there is from the rows; nobody can read a key again, so a Secret that
 * is lost is not noticed, and whoever lost it rotates.
 *
 * Between every two writes it may be interrupted: `provisioning/ApiKeys` says why nothing is lost by it.
 */
import { randomUUID } from "node:crypto"
import { Effect } from "effect"
import { newKey } from "../../domain/KeyText.ts"
import type { ResourceOf } from "../../domain/Resource.ts"
import * as ApiKeys from "../../provisioning/ApiKeys.ts"
import { actorOf } from "../../provisioning/table/Origin.ts"
import { specHash } from "../../provisioning/table/SpecHash.ts"
import { ready, stalled, type Verdict, waiting } from "../state/Conditions.ts"
import { isPast, nextEnd } from "../state/Ends.ts"
import { concluded, type Reconciled, type Reconciler, type World } from "../state/Reconciler.ts"

/** Anything new in it asks for another key. */
export const rotateAnnotation = "velocity.sh/rotate"

/** Names that are tried for one key: each that is taken already costs one. */
const maxNames = 8
/** How long until delivery is tried again where it was refused. */
const refusedPause = 60_000

type Key = ResourceOf<"ApiKey">

const handOf = (world: World, resource: Key): ApiKeys.Hand => {
  const origin = world.originOf(resource)
  return { actor: actorOf(origin), origin }
}

/** `{name}` for the first key, `{name}-{n}` for every other. */
const secretNameOf = (name: string, serial: number): string => (serial === 1 ? name : `${name}-${serial}`)

/** Mints and delivers one key; a verdict where it could not be delivered. */
const mint = Effect.fnUntraced(function* (world: World, resource: Key, first: number) {
  const { metadata, spec } = resource
  const { delivery } = world
  if (delivery === undefined) {
    return stalled("NoPlaceForKeys", "this operator has no folder for keys: start it with VELOCITY_DATA")
  }
  const hand = handOf(world, resource)
  const rotation = metadata.annotations?.[rotateAnnotation] ?? null
  for (let serial = first; serial < first + maxNames; serial++) {
    const key = newKey(world.keyEnvironment)
    const minting = { id: randomUUID(), key, serial, secretName: secretNameOf(metadata.name, serial), rotation }
    yield* world.fence.transaction((tx) => ApiKeys.prepare(tx, spec, minting, hand.origin))
    const delivered = yield* delivery.put(resource, minting)
    if (delivered._tag === "Refused") return stalled("DeliveryRefused", delivered.message)
    if (delivered._tag === "Taken") continue
    if (yield* world.fence.transaction((tx) => ApiKeys.activate(tx, spec, minting, hand))) return undefined
  }
  return stalled("NameTaken", `${secretNameOf(metadata.name, first)} and the names after it are taken by others`)
})

interface Standing {
  readonly next: number
  readonly keys: ReadonlyArray<ApiKeys.KeyRow>
}

const currentOf = ({ keys }: Standing): ApiKeys.KeyRow | undefined => keys.find((one) => one.state === "Active")

/** Whether another key is asked for: there was none yet, or the annotation says something new. */
const isWanted = (standing: Standing, { metadata }: Key): boolean => {
  const latest = standing.keys.findLast((one) => one.state !== "Pending")
  if (latest === undefined) return true
  const asked = metadata.annotations?.[rotateAnnotation]
  return asked !== undefined && asked !== latest.rotation
}

const untilOf = ({ expiresAt }: Key["spec"]): string => (expiresAt === undefined ? "" : ` until ${expiresAt}`)

/** What there is, said. */
const conclude = (world: World, resource: Key, standing: Standing, applied: boolean): Reconciled => {
  const { spec } = resource
  const current = currentOf(standing)
  const retiring = standing.keys.filter((one) => one.state === "Retiring" && !one.isPast)
  const status = {
    keyId: current?.id ?? null,
    fingerprint: current?.fingerprint ?? null,
    secretName: current?.secretName ?? null,
    retiring: retiring.map((one) => `${one.fingerprint} until ${one.retiresAt}`)
  }
  const verdict: Verdict = isPast(spec.expiresAt)
    ? stalled("Expired", `the key ended at ${spec.expiresAt}; let expiresAt be later`)
    : current === undefined
      ? stalled(
          "Revoked",
          `its key was revoked; say anything new in the annotation ${rotateAnnotation} for another one`
        )
      : ready(
          `${spec.actor} by the key ${current.fingerprint} in ${world.delivery?.place ?? "the place"} ${current.secretName}${untilOf(spec)}`
        )
  const again = nextEnd([spec.expiresAt, ...retiring.map((one) => one.retiresAt)])
  return { ...concluded(verdict, status, applied), again }
}

export const apiKeyReconciler: Reconciler<"ApiKey"> = {
  kind: "ApiKey",
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const { metadata, spec } = resource
      const hand = handOf(world, resource)
      const read = world.fence.read((tx) =>
        Effect.all({ fault: ApiKeys.trustFault(tx, spec), standing: ApiKeys.keysOf(tx, hand.origin) })
      )
      const { fault, standing } = yield* read
      const { keys } = standing
      // an object of this name that is gone: what it had ends, and its Secrets went with it
      const others = keys.filter((one) => one.uid !== (metadata.uid ?? null))
      const past = keys.filter((one) => one.state === "Retiring" && one.isPast && !others.includes(one))
      const stale = keys.some((one) => ["Active", "Retiring"].includes(one.state) && one.specHash !== specHash(spec))
      const isTouched = others.length + past.length > 0 || stale
      if (isTouched) {
        yield* world.fence.transaction((tx) =>
          Effect.gen(function* () {
            if (others.length > 0) {
              const ids = others.map((one) => one.id)
              yield* ApiKeys.revoke(tx, { _tag: "Some", ids, why: "the object was made again", departed: true }, hand)
            }
            if (past.length > 0) {
              const ids = past.map((one) => one.id)
              yield* ApiKeys.revoke(tx, { _tag: "Some", ids, why: "rotated", departed: false }, hand)
            }
            if (stale) yield* ApiKeys.narrow(tx, spec, hand)
          })
        )
      }
      const mine: Standing = { ...standing, keys: keys.filter((one) => !others.includes(one)) }
      // what is narrowed or ended is so whatever else holds it up; nothing new is made where it would open nothing
      if (fault !== undefined) {
        return concluded(
          waiting(fault.reason, fault.message),
          conclude(world, resource, mine, isTouched).status,
          isTouched
        )
      }
      if (!isWanted(mine, resource) || isPast(spec.expiresAt)) return conclude(world, resource, mine, isTouched)
      const failed = yield* mint(world, resource, standing.next)
      const after = (yield* read).standing
      const said = conclude(world, resource, after, true)
      return failed === undefined ? said : { ...said, verdict: failed, again: refusedPause }
    }),
  remove: (world, { name, namespace, why = "its object is gone" }) =>
    Effect.gen(function* () {
      const origin = { source: world.fence.source, namespace, name }
      const hand = { actor: actorOf(origin), origin }
      yield* world.fence.transaction((tx) => ApiKeys.revoke(tx, { _tag: "All", why }, hand))
      return undefined
    }),
  dependents: () => []
}
