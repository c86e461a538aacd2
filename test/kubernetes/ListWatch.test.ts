/**
 * List and watch against an API server that is restarted, cut off, and forgets: every change arrives, as the newest state
 * of its object, and none twice.
 */
import { layer } from "@effect/vitest"
import { Duration, Effect, Layer, Stream } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { configOf, Kube, KubeError, type KubeRequest, patches } from "../../src/kubernetes/Kube.ts"
import * as ListWatch from "../../src/kubernetes/ListWatch.ts"
import * as TcpProxy from "../support/TcpProxy.ts"
import { type Installed, install, until } from "./Installed.ts"
import { application, namespacesOf, organisation } from "./Manifests.ts"

let cluster: Installed

beforeAll(async () => {
  cluster = await install([...namespacesOf("still"), ...namespacesOf("busy")])
})
afterAll(() => cluster?.stop())

const path = "/apis/velocity.sh/v1/namespaces/velocity-system/organisations"

/** What a list and watch told. */
class Told {
  readonly events: Array<{ readonly key: string; readonly version: string | undefined }> = []
  readonly now = new Map<string, string>()
  lists = 0

  readonly take = (key: string, object: ListWatch.KubeObject | undefined): void => {
    const version = object?.metadata.resourceVersion
    this.events.push({ key, version })
    if (version === undefined) this.now.delete(key)
    else this.now.set(key, version)
  }

  /** Each version of an object once, and never an older one after a newer. */
  readonly isInOrder = (): boolean => {
    const last = new Map<string, bigint>()
    return this.events.every(({ key, version }) => {
      const before = last.get(key)
      if (version === undefined) return before !== undefined
      last.set(key, BigInt(version))
      return before === undefined || BigInt(version) > before
    })
  }
}

/** Those that the tests of this file have made and not removed. */
const actual = async (prefix: string): Promise<ReadonlyArray<readonly [string, string]>> => {
  const list = JSON.parse(await cluster.ok(["get", "--raw", path])) as {
    readonly items: ReadonlyArray<ListWatch.KubeObject>
  }
  return list.items
    .filter((one) => one.metadata.name.startsWith(prefix))
    .map((one) => [ListWatch.keyOf(one), one.metadata.resourceVersion] as const)
    .sort()
}

/** Follows the objects of one test through a proxy; `through` may alter how it speaks to the server. */
const follow = Effect.fnUntraced(function* (
  prefix: string,
  options: Partial<ListWatch.ListWatchOptions> = {},
  through: (kube: Kube["Service"]) => Kube["Service"] = (kube) => kube
) {
  const proxy = yield* TcpProxy.make(cluster.url)
  const config = yield* Effect.promise(() => configOf(cluster.kubeconfig))
  const [real] = config.clusters
  if (real === undefined) return yield* Effect.die("a kubeconfig without a cluster")
  config.clusters = [{ ...real, server: proxy.url.replace(/\/$/u, "") }]
  const told = new Told()
  yield* ListWatch.run({
    path,
    onChange: (key, object) =>
      Effect.sync(() => {
        if (key.split("/")[1]?.startsWith(prefix) === true) told.take(key, object)
      }),
    onListed: Effect.sync(() => {
      told.lists += 1
    }),
    ...options
  }).pipe(
    Effect.provide(Layer.effect(Kube, Effect.map(Kube, through)).pipe(Layer.provide(Kube.layerOf(config)))),
    Effect.forkScoped
  )
  const caughtUp = Effect.promise(() =>
    until(`${prefix} is caught up with`, async () => {
      const there = await actual(prefix)
      return JSON.stringify(there) === JSON.stringify([...told.now].sort())
    })
  )
  return { told, proxy, caughtUp }
})

const name = (prefix: string, index: number) => `${prefix}${index}`
const make = (prefix: string, index: number) => Effect.promise(() => cluster.apply([organisation(name(prefix, index))]))
const change = (prefix: string, index: number, text: string) =>
  Effect.promise(() =>
    cluster.ok([
      "patch",
      "vorg",
      name(prefix, index),
      "-n",
      "velocity-system",
      "--type=merge",
      "-p",
      JSON.stringify({ spec: { displayName: text } })
    ])
  )
const remove = (prefix: string, index: number) =>
  Effect.promise(() => cluster.ok(["delete", "vorg", name(prefix, index), "-n", "velocity-system"]))

layer(Layer.empty, { excludeTestServices: true })("list and watch", (it) => {
  it.effect("tells each version of each object once, and what is gone, from a list in pages", () =>
    Effect.gen(function* () {
      yield* Effect.promise(() =>
        cluster.apply(Array.from({ length: 7 }, (_, index) => organisation(name("pages", index))))
      )
      let pages = 0
      const { caughtUp, told } = yield* follow("pages", { pageSize: 2 }, (kube) => ({
        ...kube,
        request: (asked) => {
          pages += 1
          return kube.request(asked)
        }
      }))
      yield* caughtUp
      expect(pages).toBeGreaterThan(3)
      yield* change("pages", 0, "one")
      yield* change("pages", 0, "two")
      yield* remove("pages", 1)
      yield* make("pages", 1)
      yield* caughtUp
      expect(told.events.filter(({ key }) => key.endsWith("/pages0"))).toHaveLength(3)
      expect(
        told.events.filter(({ key }) => key.endsWith("/pages1")).map(({ version }) => version !== undefined)
      ).toEqual([true, false, true])
      expect(told.isInOrder()).toBe(true)
      expect(told.lists).toBe(1)
    })
  )

  it.effect("goes on from where it was when its connection is cut and nothing has happened, without a new list", () =>
    Effect.gen(function* () {
      yield* make("still", 0)
      let watches = 0
      const { caughtUp, proxy, told } = yield* follow("still", {}, (kube) => ({
        ...kube,
        lines: (asked) => {
          watches += 1
          return kube.lines(asked)
        }
      }))
      yield* caughtUp
      for (let round = 1; round <= 3; round++) {
        const before = watches
        proxy.cut()
        yield* Effect.promise(() => until("it watches again", async () => watches > before))
        yield* change("still", 0, `round ${round}`)
        yield* caughtUp
      }
      expect(told.isInOrder()).toBe(true)
      expect(told.events.filter(({ key }) => key.endsWith("/still0"))).toHaveLength(4)
      expect(told.lists).toBe(1)
    })
  )

  it.effect("misses nothing that happens while its connection is cut", () =>
    Effect.gen(function* () {
      yield* make("cut", 0)
      const { caughtUp, proxy, told } = yield* follow("cut")
      yield* caughtUp
      for (let round = 1; round <= 3; round++) {
        proxy.refuse(true)
        proxy.cut()
        yield* change("cut", 0, `round ${round}`)
        yield* make("cut", round)
        proxy.refuse(false)
        yield* caughtUp
      }
      expect(told.isInOrder()).toBe(true)
      expect(told.events.filter(({ key }) => key.endsWith("/cut0"))).toHaveLength(4)
    })
  )

  it.effect("lists anew after an ERROR event with 410, and tells what changed and what is gone meanwhile", () =>
    Effect.gen(function* () {
      yield* make("gone", 0)
      yield* make("gone", 1)
      let injected = 0
      const { caughtUp, told } = yield* follow("gone", {}, (kube) => ({
        ...kube,
        lines: (asked) =>
          kube.lines(asked).pipe(
            Stream.map((line) => {
              // in the place of the change itself, so that only a list can bring it
              if (!line.includes('"displayName":"lost"') || injected > 0) return line
              injected += 1
              return JSON.stringify({
                type: "ERROR",
                object: { kind: "Status", code: 410, reason: "Expired", metadata: {} }
              })
            })
          )
      }))
      yield* caughtUp
      yield* change("gone", 0, "lost")
      yield* remove("gone", 1)
      yield* caughtUp
      expect(injected).toBe(1)
      expect(told.lists).toBe(2)
      expect(told.isInOrder()).toBe(true)
    })
  )

  it.effect("begins a list anew whose next page has expired", () =>
    Effect.gen(function* () {
      yield* Effect.promise(() =>
        cluster.apply(Array.from({ length: 5 }, (_, index) => organisation(name("stale", index))))
      )
      let refused = 0
      const { caughtUp, told } = yield* follow("stale", { pageSize: 2 }, (kube) => ({
        ...kube,
        request: (asked: KubeRequest) =>
          asked.query?.continue !== undefined && refused++ === 0
            ? Effect.fail(new KubeError({ reason: "Expired", status: 410, message: "the continue token has expired" }))
            : kube.request(asked)
      }))
      yield* caughtUp
      expect(refused).toBeGreaterThan(1)
      expect(told.events).toHaveLength(5)
    })
  )

  it.effect("moves on by bookmarks where nothing happens", () =>
    Effect.gen(function* () {
      yield* Effect.promise(() => cluster.apply([application("still"), application("busy")]))
      const versions: Array<bigint> = []
      const { told } = yield* follow(
        "shop",
        { path: "/apis/velocity.sh/v1/namespaces/still/applications", watchFor: Duration.seconds(3) },
        (kube) => ({
          ...kube,
          lines: (asked) => {
            versions.push(BigInt(asked.query?.resourceVersion ?? "0"))
            return kube.lines(asked)
          }
        })
      )
      let turn = 0
      yield* Effect.promise(() =>
        until("the version has moved on", async () => {
          // in another namespace, so that no event of it comes
          turn += 1
          const patch = JSON.stringify({ spec: { owner: `turn ${turn}` } })
          await cluster.ok(["patch", "vapp", "shop", "-n", "busy", "--type=merge", "-p", patch])
          return versions.length > 1 && (versions.at(-1) ?? 0n) > (versions[0] ?? 0n)
        })
      )
      expect(told.events).toHaveLength(1)
      expect(told.lists).toBe(1)
    })
  )

  it.effect("does not believe a watch that says nothing", () =>
    Effect.gen(function* () {
      yield* make("mute", 0)
      let asked = 0
      const { caughtUp, proxy, told } = yield* follow("mute", { silence: Duration.seconds(3) }, (kube) => ({
        ...kube,
        request: (one) => {
          asked += 1
          return kube.request(one)
        }
      }))
      yield* caughtUp
      const before = asked
      proxy.deafen()
      yield* change("mute", 0, "unheard")
      yield* Effect.promise(() => until("the watch is given up and a list asked for", async () => asked > before))
      // what was in flight is lost; new connections are in order
      proxy.cut()
      proxy.resume()
      yield* caughtUp
      expect(told.isInOrder()).toBe(true)
    })
  )

  it.effect("survives the API server: killed and restarted on the same port, with changes before and after", () =>
    Effect.gen(function* () {
      yield* make("dead", 0)
      const { caughtUp, told } = yield* follow("dead")
      yield* caughtUp
      for (let round = 1; round <= 2; round++) {
        yield* change("dead", 0, `before ${round}`)
        yield* make("dead", round)
        yield* Effect.promise(() => cluster.killApiServer())
        yield* Effect.promise(() => cluster.startApiServer())
        yield* change("dead", 0, `after ${round}`)
        yield* caughtUp
      }
      expect(told.isInOrder()).toBe(true)
      expect([...told.now.keys()].sort()).toEqual(["dead0", "dead1", "dead2"].map((one) => `velocity-system/${one}`))
    })
  )

  it.effect("lists anew when the server has forgotten its version: restarted after changes that it did not hear", () =>
    Effect.gen(function* () {
      yield* make("past", 0)
      yield* make("past", 1)
      const expired: Array<string> = []
      const { caughtUp, proxy, told } = yield* follow("past", {}, (kube) => ({
        ...kube,
        lines: (asked) =>
          kube.lines(asked).pipe(
            Stream.tap((line) =>
              Effect.sync(() => {
                if (line.includes('"type":"ERROR"')) expired.push(line)
              })
            )
          )
      }))
      yield* caughtUp
      proxy.refuse(true)
      proxy.cut()
      yield* change("past", 0, "unheard")
      yield* remove("past", 1)
      yield* make("past", 2)
      yield* Effect.promise(() => cluster.compact())
      yield* Effect.promise(() => cluster.killApiServer())
      yield* Effect.promise(() => cluster.startApiServer())
      proxy.refuse(false)
      yield* caughtUp
      expect(told.isInOrder()).toBe(true)
      expect(told.lists).toBeGreaterThan(1)
      expect(told.events.at(-1)).toBeDefined()
    })
  )
})

layer(Layer.empty, { excludeTestServices: true })("a request", (it) => {
  const kube = <A>(effect: Effect.Effect<A, unknown, Kube>) =>
    effect.pipe(
      Effect.provide(Layer.unwrap(Effect.promise(async () => Kube.layerOf(await configOf(cluster.kubeconfig)))))
    )

  it.effect("says why it failed", () =>
    kube(
      Effect.gen(function* () {
        const api = yield* Kube
        const reasonOf = (asked: KubeRequest) => Effect.map(Effect.flip(api.request(asked)), (error) => error.reason)
        expect(yield* reasonOf({ method: "GET", path: `${path}/nobody` })).toBe("NotFound")
        const body = organisation("twice")
        yield* api.request({ method: "POST", path, body })
        expect(yield* reasonOf({ method: "POST", path, body })).toBe("Conflict")
        expect(yield* reasonOf({ method: "POST", path, body: { ...organisation("wrong"), spec: { org: "A" } } })).toBe(
          "Invalid"
        )
        const test = [{ op: "test", path: "/metadata/uid", value: "another" }]
        expect(yield* reasonOf({ method: "PATCH", path: `${path}/twice`, body: test, contentType: patches.json })).toBe(
          "Invalid"
        )
      })
    )
  )
})
