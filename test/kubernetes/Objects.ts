/** What a cluster test does with single objects: reads their conditions, waits for them, and takes them away. */
import { Effect } from "effect"
import { type Installed, until } from "./Installed.ts"
import type { Manifest } from "./Manifests.ts"

export interface Condition {
  readonly type: string
  readonly status: string
  readonly reason: string
  readonly message: string
  readonly observedGeneration: number
}

export interface Read {
  readonly metadata: {
    readonly uid: string
    readonly generation: number
    readonly resourceVersion: string
    readonly deletionTimestamp?: string
    readonly finalizers?: ReadonlyArray<string>
  }
  readonly status?: {
    readonly observedGeneration?: number
    readonly phase?: string
    readonly pgTable?: string
    readonly records?: number
    readonly plan?: Readonly<Record<string, unknown>>
    readonly conditions?: ReadonlyArray<Condition>
  }
}

export const conditionIn = (read: Read | undefined, type: string): Condition | undefined =>
  read?.status?.conditions?.find((condition) => condition.type === type)

export const named = (one: Manifest): ReadonlyArray<string> => [
  `${one.kind.toLowerCase()}.velocity.sh/${one.metadata.name}`,
  "-n",
  String(one.metadata.namespace)
]

/** The same in an order that a seed gives. */
export const shuffled = <A>(items: ReadonlyArray<A>, seed: number): ReadonlyArray<A> => {
  let state = seed
  const next = () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
  return items
    .map((item) => [next(), item] as const)
    .sort((a, b) => a[0] - b[0])
    .map(([, item]) => item)
}

/** The same for the objects of one cluster, which may be started after this is called. */
export const objectsOf = (cluster: () => Installed) => {
  const promise = <A>(f: () => Promise<A>) => Effect.promise(f)
  const read = async (one: Manifest): Promise<Read | undefined> => {
    const { code, err, out } = await cluster().kubectl(["get", ...named(one), "-o", "json"])
    if (code !== 0 && err.includes("NotFound")) return undefined
    if (code !== 0) throw new Error(err)
    return JSON.parse(out) as Read
  }
  const ok = (...args: ReadonlyArray<string>) => promise(() => cluster().ok(args))
  const is = (one: Manifest, type: string) => ok("wait", `--for=condition=${type}`, "--timeout=90s", ...named(one))
  /** Waits until a condition is told so; answers it. */
  const conditionIs = (one: Manifest, type: string, what: string, test: (condition: Condition) => boolean) =>
    promise(async () => {
      let found: Condition | undefined
      await until(`${one.kind} ${one.metadata.name} ${what}`, async () => {
        found = conditionIn(await read(one), type)
        return found !== undefined && test(found)
      })
      return found
    })
  return {
    ok,
    read: (one: Manifest) => promise(() => read(one)),
    apply: (...manifests: ReadonlyArray<Manifest>) => promise(() => cluster().apply(manifests)),
    ready: (one: Manifest) => is(one, "Ready"),
    provisioned: (one: Manifest) => is(one, "Provisioned"),
    condition: (one: Manifest, type: string) => promise(async () => conditionIn(await read(one), type)),
    conditionIs,
    readyIs: (one: Manifest, what: string, test: (condition: Condition) => boolean) =>
      conditionIs(one, "Ready", what, test),
    annotate: (one: Manifest, annotation: string) => ok("annotate", "--overwrite", ...named(one), annotation),
    remove: (one: Manifest) => ok("delete", "--wait=false", ...named(one)),
    isGone: (one: Manifest) =>
      promise(() => until(`${one.metadata.name} is gone`, async () => (await read(one)) === undefined)),
    /** Gone from etcd without the operator's doing: somebody takes its finalizer away and deletes the object. */
    force: (one: Manifest) =>
      Effect.andThen(
        ok("patch", ...named(one), "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]'),
        ok("delete", ...named(one))
      )
  }
}
