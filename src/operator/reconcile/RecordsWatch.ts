/**
 * About how many records a served definition has: looked at once an hour, and once by an operator that starts, because a
 * status that follows each record would be written for ever (fine print 31).
 */
import { Clock, Effect, Exit } from "effect"
import { recordsOf } from "../../provisioning/RecordsEstimate.ts"
import type { World } from "../state/Reconciler.ts"
import { rounded } from "./DefinitionStatus.ts"

/** In milliseconds. */
const lookEvery = 60 * 60_000

const known = new WeakMap<World["fence"], Map<string, { readonly at: number; readonly records: number | undefined }>>()

/** Undefined where nothing is served, or where it could not be looked at yet. */
export const recordsAbout = Effect.fnUntraced(function* (
  { fence }: World,
  path: string
): Effect.fn.Return<number | undefined> {
  const looked = known.get(fence) ?? new Map()
  known.set(fence, looked)
  const now = yield* Clock.currentTimeMillis
  const last = looked.get(path)
  if (last?.records !== undefined && now - last.at < lookEvery) return last.records
  // nobody's conclusion fails for it
  const found = yield* Effect.exit(fence.read((tx) => recordsOf(tx, path)))
  if (Exit.isFailure(found)) return last?.records
  const records = found.value === undefined ? undefined : rounded(found.value)
  looked.set(path, { at: now, records })
  return records
})
