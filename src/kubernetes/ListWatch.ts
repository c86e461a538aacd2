/**
 * The objects of one kind as they are now, kept by list and watch (Kubernetes API concepts, "Efficient detection of changes").
 *
 * A list says what there is, a watch from its resource version what happened since; bookmarks move that version on where
 * nothing happened, so that a watch that ends, or is cut, can go on from it. A version that has expired (410), a watch that
 * says nothing for longer than it may, several failures in a row, an API server that after a failure has not the newest
 * object that is known (it changed, or etcd was restored to the past), and half an hour without a list each bring a new
 * list, compared with what was known.
 * So a change can come late and cannot be missed.
 */
import { Clock, Data, Duration, Effect, Metric, Random, Stream } from "effect"
import { Kube, KubeError } from "./Kube.ts"

/** What every object has, as far as we read it. */
export interface KubeObject {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly uid: string
    readonly resourceVersion: string
    readonly generation?: number
    readonly deletionTimestamp?: string
    readonly finalizers?: ReadonlyArray<string>
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec?: unknown
  readonly status?: unknown
}

export interface ListWatchOptions {
  /** `/apis/velocity.sh/v1/domains`, or that of one namespace. */
  readonly path: string
  /**
   * Called for each object that came, changed or went, one at a time; `object` is undefined where it went. A list may say
   * that what a watch or a write had told never was: an etcd that was restored goes back in time.
   */
  readonly onChange: (key: string, object: KubeObject | undefined, from: "list" | "watch") => Effect.Effect<void>
  /** Called when a list has been taken in whole. */
  readonly onListed: Effect.Effect<void>
  /** Objects of a page of the list (500). */
  readonly pageSize?: number
  /** How long a watch lasts, at least; the server ends it (5 min). */
  readonly watchFor?: Duration.Duration
  /** After this a list is taken whatever the watch said (30 min). */
  readonly relistAfter?: Duration.Duration
  /** A watch that says nothing for so long counts as dead: bookmarks come about each minute (90 s). */
  readonly silence?: Duration.Duration
}

/** `{namespace}/{name}`. */
export const keyOf = ({ metadata }: KubeObject): string => `${metadata.namespace ?? ""}/${metadata.name}`

interface List {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
  readonly items?: ReadonlyArray<KubeObject>
}

interface WatchEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR"
  readonly object: KubeObject & { readonly code?: number; readonly message?: string }
}

/** The watch must begin again with a list. */
class Relist extends Data.TaggedError("Relist")<{ readonly why: string }> {}

const heardGauge = Metric.gauge("velocity_watch_heard_timestamp_seconds", {
  description: "When the API server last answered a list or said something in a watch, by path; 0 where it has not yet"
})

/** After so many failures in a row a watch does not go on from where it was. */
const patience = 3

/** The wait before a try, by how many failed since the last list: half a second, doubled up to thirty, ±20 %. */
const waitAfter = (failures: number, chance: number): Duration.Duration =>
  Duration.millis(Math.min(500 * 2 ** Math.min(failures - 1, 10), 30_000) * (0.8 + 0.4 * chance))

/** Keeps `onChange` told until the scope closes. Never fails: what fails is tried again, and logged. */
export const run = (options: ListWatchOptions): Effect.Effect<never, never, Kube> =>
  Effect.gen(function* () {
    const kube = yield* Kube
    const known = new Map<string, KubeObject>()
    let failures = 0
    const pageSize = options.pageSize ?? 500
    const watchFor = options.watchFor ?? Duration.minutes(5)
    const silence = options.silence ?? Duration.seconds(90)
    const gauge = Metric.withAttributes(heardGauge, { path: options.path })
    const heard = Effect.flatMap(Clock.currentTimeMillis, (now) => Metric.update(gauge, Math.floor(now / 1000)))
    yield* Metric.update(gauge, 0)
    const relistAfter = Duration.toMillis(options.relistAfter ?? Duration.minutes(30))

    const tell = (key: string, object: KubeObject | undefined, from: "list" | "watch"): Effect.Effect<void> => {
      const before = known.get(key)
      if (
        before?.metadata.uid === object?.metadata.uid &&
        before?.metadata.resourceVersion === object?.metadata.resourceVersion
      ) {
        return Effect.void
      }
      if (object === undefined) known.delete(key)
      else known.set(key, object)
      return options.onChange(key, object, from)
    }

    /** Takes in everything there is; answers the version that it is of. */
    const list = Effect.gen(function* () {
      const seen = new Set<string>()
      let version = ""
      let next: string | undefined
      do {
        const page = (yield* kube.request({
          method: "GET",
          path: options.path,
          query: { limit: String(pageSize), continue: next }
        })) as List
        for (const item of page.items ?? []) {
          const key = keyOf(item)
          seen.add(key)
          yield* tell(key, item, "list")
        }
        version = page.metadata?.resourceVersion ?? ""
        next = page.metadata?.continue === "" ? undefined : page.metadata?.continue
      } while (next !== undefined)
      for (const key of [...known.keys()]) if (!seen.has(key)) yield* tell(key, undefined, "list")
      failures = 0
      yield* heard
      yield* options.onListed
      return version
    })

    const take = (line: string): Effect.Effect<string, Relist | KubeError> =>
      Effect.gen(function* () {
        const event = JSON.parse(line) as WatchEvent
        switch (event.type) {
          case "ADDED":
          case "MODIFIED":
            yield* tell(keyOf(event.object), event.object, "watch")
            break
          case "DELETED":
            yield* tell(keyOf(event.object), undefined, "watch")
            break
          case "BOOKMARK":
            break
          default:
            return yield* event.object.code === 410
              ? new Relist({ why: "its version has expired" })
              : new KubeError({
                  reason: "Unavailable",
                  status: event.object.code ?? 0,
                  message: event.object.message ?? "the watch failed"
                })
        }
        return event.object.metadata.resourceVersion
      })

    const failed = (error: KubeError) =>
      Effect.gen(function* () {
        failures += 1
        const backoff = waitAfter(failures, yield* Random.next)
        const wait = Duration.max(backoff, Duration.seconds(Math.min(error.retryAfter ?? 0, 60)))
        yield* Effect.logWarning(
          `${options.path} cannot be watched: ${error.message}; tried again in ${Duration.format(wait)}`
        )
        yield* Effect.sleep(wait)
      })

    /** One watch, from a version to its end; `moved` is told each version that it comes to. */
    const watch = Effect.fnUntraced(function* (version: string, moved: (version: string) => void) {
      const seconds = Math.round(Duration.toSeconds(watchFor) * (1 + (yield* Random.next)))
      yield* kube
        .lines({
          method: "GET",
          path: options.path,
          query: {
            watch: "true",
            resourceVersion: version,
            allowWatchBookmarks: "true",
            timeoutSeconds: String(seconds)
          }
        })
        .pipe(
          Stream.timeoutOrElse({
            duration: silence,
            orElse: () => Stream.fail(new Relist({ why: "its watch says nothing" }))
          }),
          Stream.mapEffect(take),
          Stream.runForEach((seen) =>
            Effect.suspend(() => {
              failures = 0
              moved(seen)
              return heard
            })
          )
        )
    })

    /**
     * The version to go on from after a failure. Versions alone do not tell a history from another: a restored etcd goes on
     * counting from where it was. The newest object that is known does: who has it in that version has all that led to it.
     */
    const sureOf = Effect.gen(function* () {
      const newest = [...known.values()].reduce<KubeObject | undefined>(
        (a, b) => (a !== undefined && BigInt(a.metadata.resourceVersion) > BigInt(b.metadata.resourceVersion) ? a : b),
        undefined
      )
      if (newest === undefined) return yield* new Relist({ why: "nothing is known to go on from" })
      const { name, namespace, resourceVersion, uid } = newest.metadata
      const fieldSelector = [
        `metadata.name=${name}`,
        ...(namespace === undefined ? [] : [`metadata.namespace=${namespace}`])
      ].join(",")
      const page = (yield* kube.request({ method: "GET", path: options.path, query: { fieldSelector } })) as List
      const is = page.items?.[0]?.metadata
      if (is?.uid === uid && is.resourceVersion === resourceVersion) return resourceVersion
      return yield* new Relist({ why: "what was newest is another by now" })
    })

    /** One list and the watches that go on from it, until a new list is due. */
    const life = Effect.gen(function* () {
      let version = yield* list
      const listedAt = performance.now()
      const onceMore = (error: KubeError) =>
        error.reason === "Expired" || failures >= patience ? Effect.fail(error) : failed(error)
      let isInDoubt: boolean = false
      while (performance.now() - listedAt < relistAfter) {
        const from: Effect.Effect<string, Relist | KubeError> = isInDoubt ? sureOf : Effect.succeed(version)
        const watched = (since: string) =>
          watch(since, (seen) => {
            version = seen
          })
        isInDoubt = yield* Effect.flatMap(from, watched).pipe(
          Effect.as(false),
          Effect.catchTag("KubeError", (error) => Effect.as(onceMore(error), true))
        )
      }
    })

    return yield* life.pipe(
      Effect.catchTag("Relist", ({ why }) => Effect.logDebug(`${options.path} is listed anew: ${why}`)),
      Effect.catchTag("KubeError", (error) =>
        // the first time it is how versions end; again and again it is a failure like any other
        error.reason === "Expired" && failures === 0
          ? Effect.andThen(
              Effect.sync(() => {
                failures += 1
              }),
              Effect.logDebug(`${options.path} is listed anew: its version has expired`)
            )
          : failed(error)
      ),
      // what is left is a defect: told, and never the end of watching
      Effect.catchCause((cause) =>
        Effect.andThen(Effect.logError(`watching ${options.path} failed`, cause), Effect.sleep("1 second"))
      ),
      Effect.forever
    )
  })
