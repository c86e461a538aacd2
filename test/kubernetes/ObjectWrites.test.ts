/** No write of the operator brings back what is gone, or reaches another object of the same name (fine print 26). */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { configOf, Kube } from "../../src/kubernetes/Kube.ts"
import type { KubeObject } from "../../src/kubernetes/ListWatch.ts"
import {
  addFinalizer,
  applyStatus,
  finalizer,
  hasFinalizer,
  removeFinalizer
} from "../../src/kubernetes/ObjectWrites.ts"
import { type Installed, install } from "./Installed.ts"
import { definition, namespacesOf } from "./Manifests.ts"
import { named, objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, ok, read } = objectsOf(() => cluster)
const thing = definition("written", "thing")
const status = { observedGeneration: 1, path: "written/shop/eu/thing/v1", conditions: [] }

beforeAll(async () => {
  cluster = await install(namespacesOf("written"))
})
afterAll(() => cluster?.stop())

/** The object as it was read, before `meanwhile`. */
const stale = Effect.fnUntraced(function* (meanwhile: Effect.Effect<unknown>) {
  yield* apply(thing)
  const object = (yield* read(thing)) as unknown as KubeObject
  yield* meanwhile
  return object
})

const asKube = <A, E>(effect: Effect.Effect<A, E, Kube>) =>
  Effect.gen(function* () {
    const config = yield* Effect.promise(() => configOf(cluster.kubeconfig))
    return yield* effect.pipe(Effect.provide(Kube.layerOf(config)))
  })

/** What of a write is refused, and with which reason. */
const refused = <A>(write: Effect.Effect<A, { readonly reason: string }, Kube>) =>
  Effect.map(Effect.flip(asKube(write)), ({ reason }) => reason)

const remove = ok("delete", ...named(thing))

layer(Layer.empty, { excludeTestServices: true })("a write to an object that was read", (it) => {
  it.effect("and is gone makes none", () =>
    Effect.gen(function* () {
      const object = yield* stale(remove)
      expect(yield* refused(addFinalizer("SchemaDefinition", object))).toBe("NotFound")
      expect(yield* refused(applyStatus("SchemaDefinition", object, status))).toBe("NotFound")
      yield* asKube(removeFinalizer("SchemaDefinition", object))
      expect(yield* read(thing)).toBeUndefined()
    })
  )

  it.effect("and made anew leaves the new one without a finalizer, and with the one that it has", () =>
    Effect.gen(function* () {
      const object = yield* stale(Effect.andThen(remove, apply(thing)))
      const anew = yield* read(thing)
      expect(anew?.metadata.uid).not.toBe(object.metadata.uid)
      const held = { ...object, metadata: { ...object.metadata, finalizers: [finalizer] } }
      yield* refused(addFinalizer("SchemaDefinition", object))
      yield* refused(removeFinalizer("SchemaDefinition", held))
      expect(yield* read(thing)).toEqual(anew)
      yield* remove
    })
  )

  it.effect("and changed meanwhile gets no finalizer, and its status all the same", () =>
    Effect.gen(function* () {
      const changed = definition("written", "thing", { description: "another" })
      const object = yield* stale(apply(changed))
      yield* refused(addFinalizer("SchemaDefinition", object))
      const now = (yield* read(thing)) as unknown as KubeObject
      expect(hasFinalizer(now)).toBe(false)
      yield* asKube(applyStatus("SchemaDefinition", object, status))
      expect((yield* read(thing))?.status?.observedGeneration).toBe(1)
      yield* remove
    })
  )
})
