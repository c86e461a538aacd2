/**
 * An index that is built for hours, since an old snapshot is open, holds up nobody else: no definition and no revocation, of
 * another domain or of its own.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { connect, freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { binding, definition, domain, type Manifest, namespace, namespacesOf, parents } from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, condition, isGone, read, ready, readyIs, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

/** The same of the domain `us`, in its namespace. */
const inUs = (org: string, one: Manifest): Manifest => ({
  ...one,
  metadata: one.kind === "Domain" ? { ...one.metadata, name: "us" } : { ...one.metadata, namespace: `${org}-shop-us` },
  spec: { ...(one.spec as object), domain: "us" }
})

layer(Layer.empty, { excludeTestServices: true })("an index that waits for an old snapshot", (it) => {
  it.effect("holds up no definition and no revocation, of its own domain or of another", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const us = (one: Manifest) => inUs(org, one)
      const [thing, alice, bob] = [definition(org, "thing"), binding(org, "alice"), us(binding(org, "bob"))]
      yield* apply(
        ...namespacesOf(org),
        namespace(`${org}-shop-us`, { org, app: "shop", domain: "us" }),
        ...parents(org),
        us(domain(org)),
        thing,
        alice,
        bob
      )
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      for (const one of [thing, alice, bob]) yield* ready(one)
      yield* query(
        database.superuserUrl,
        `insert into ${org}_shop_eu.thing_v1 (id, created_at, created_by, updated_at, updated_by, a)
         select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || n from generate_series(1, 10) n`
      )
      const exporter = yield* connect(database.apiUrl)
      yield* exporter.query("begin isolation level repeatable read")
      yield* exporter.query("select 1")

      yield* apply(definition(org, "thing", { fields: [{ name: "a", type: "string", indexed: true }] }))
      yield* readyIs(thing, "waits", ({ message }) => message.includes("it waits for the transaction of pid"))
      expect((yield* read(thing))?.status).toMatchObject({
        phase: "Evolving",
        records: 0,
        plan: {
          hash: expect.stringMatching(/^p[0-9a-f]{32}$/u),
          state: "Running",
          step: 1,
          steps: [
            {
              phase: "build",
              does: "index a",
              sql: expect.stringContaining("create index concurrently"),
              lock: "SHARE UPDATE EXCLUSIVE",
              rewrites: false,
              losesData: false,
              needsApproval: false,
              estimate: 10
            },
            { phase: "switch" }
          ]
        }
      })
      const bound = query(
        database.superuserUrl,
        "select actor from platform.role_bindings where revoked_at is null and chain like $1 || '/%'",
        [org]
      )
      // in the other domain, then in its own: what is new, what changes, what ends
      for (const here of [us, (one: Manifest) => one]) {
        const other = here(definition(org, "other"))
        yield* apply(other)
        yield* ready(other)
        const more = {
          fields: [
            { name: "a", type: "string" },
            { name: "b", type: "string" }
          ]
        }
        yield* apply(here(definition(org, "other", more)))
        yield* readyIs(
          other,
          "is changed",
          ({ observedGeneration, status }) => status === "True" && observedGeneration === 2
        )
      }
      for (const one of [bob, alice]) {
        yield* remove(one)
        yield* isGone(one)
      }
      yield* Effect.promise(() =>
        until("both bindings have ended", async () => (await Effect.runPromise(bound)).length === 0)
      )
      const again = binding(org, "carol")
      yield* apply(again)
      yield* ready(again)
      // all that while it waited, and it is done when it may be
      expect(yield* condition(thing, "Ready")).toMatchObject({
        status: "False",
        reason: "Evolving",
        message: expect.stringContaining("it waits for the transaction of pid")
      })
      yield* exporter.query("rollback")
      yield* readyIs(
        thing,
        "is Ready",
        ({ observedGeneration, status }) => status === "True" && observedGeneration === 2
      )
      const { phase, plan } = (yield* read(thing))?.status ?? {}
      expect({ phase, plan }).toEqual({ phase: "Provisioned", plan: undefined })
      const indexes = yield* query(
        database.superuserUrl,
        `select i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid
         where i.indrelid = '${org}_shop_eu.thing_v1'::regclass and c.relname like 'ix\\_%'`
      )
      expect(indexes).toEqual([{ valid: true }])
    })
  )
})
