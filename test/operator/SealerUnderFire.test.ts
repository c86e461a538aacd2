/**
 * Thirty-two writers, some of whom roll back, with writers, sealer and the whole server killed at random meanwhile: what was
 * acknowledged is in the log once, the log is one tree without a gap, and every checkpoint that was ever signed is a
 * beginning of it.
 */
import { layer } from "@effect/vitest"
import { ConfigProvider, Effect, Fiber, Layer, Random, Schedule } from "effect"
import { expect } from "vitest"
import { rootHash } from "../../src/domain/MerkleTree.ts"
import { sameHash } from "../../src/domain/TreeProof.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { connect, query } from "../support/Database.ts"
import { OwnServer } from "../support/OwnServer.ts"
import { leavesOf, makeKeys, naiveRoot } from "../support/Sealing.ts"

const writers = 32
/** Entries that are acknowledged before the fire ends. */
const enough = 3_000
const blows = 60
/** Each is a `kill -9` of a backend, after which Postgres ends all others and recovers from its log. */
const crashes = 3

const entrySql =
  "select platform.audit_insert('platform', 'operator/fire', 'operator.fire', 'ok', null, $1::uuid, null, null, null, null, null)"

layer(OwnServer.layer({ synchronous_commit: "on", fsync: "on" }), { excludeTestServices: true })(
  "a sealer under fire",
  (it) => {
    it.effect(
      "grows one tree, of everything that was acknowledged",
      () =>
        Effect.gen(function* () {
          const server = yield* OwnServer
          yield* server.migratedDatabase("fire")
          const operatorUrl = server.operator("fire")
          const superuserUrl = server.superuser("fire")
          const keys = yield* makeKeys()
          const acknowledged = new Set<string>()
          const rolledBack = new Set<string>()

          /** Writes over one connection until that is killed, and then over the next. */
          const writer = Effect.gen(function* () {
            const connection = yield* connect(operatorUrl)
            for (;;) {
              const id = crypto.randomUUID()
              const undone = (yield* Random.next) < 0.1
              yield* connection.query("begin")
              yield* connection.query(entrySql, [id])
              if (undone) rolledBack.add(id)
              yield* connection.query(undone ? "rollback" : "commit")
              if (!undone) acknowledged.add(id)
            }
          }).pipe(Effect.scoped, Effect.ignore, Effect.repeat(Schedule.spaced("20 millis")))

          const signed: Array<{ readonly size: number; readonly root: Uint8Array }> = []
          const services = Fence.layerOf({ holder: "fire", source: "folder" }).pipe(
            Layer.provideMerge(OperatorSql.layer),
            Layer.provide(
              ConfigProvider.layer(ConfigProvider.fromUnknown({ VELOCITY_OPERATOR_DATABASE_URL: operatorUrl }))
            )
          )
          const settings = { publishDir: undefined, witnesses: [], outside: undefined, batch: 500 }
          /** A sealer's life: it checks, and seals without a pause until something kills it. */
          const sealing = Effect.gen(function* () {
            const sealer = yield* Sealer.make(settings)
            yield* sealer.check(keys)
            yield* Effect.forever(
              Effect.tap(sealer.round(keys), (made) =>
                Effect.andThen(
                  Effect.sync(() => {
                    if (made !== undefined) signed.push(made)
                  }),
                  Effect.sleep("5 millis")
                )
              )
            )
          }).pipe(Effect.provide(services), Effect.scoped, Effect.ignore, Effect.repeat(Schedule.spaced("20 millis")))

          const someone = (application: string) =>
            query(
              superuserUrl,
              "select pid from pg_stat_activity where datname = 'fire' and application_name = $1 order by random() limit 1",
              [application]
            )
          const blow = Effect.gen(function* () {
            const [victim] = yield* someone((yield* Random.next) < 0.3 ? "velocity-operator" : "velocity test")
            if (victim !== undefined) yield* query(superuserUrl, "select pg_terminate_backend($1::int4)", [victim.pid])
          }).pipe(Effect.ignore)
          const crash = Effect.gen(function* () {
            const [victim] = yield* someone("velocity test")
            yield* Effect.sync(() => process.kill(Number(victim?.pid), "SIGKILL"))
          }).pipe(Effect.retry(Schedule.spaced("20 millis")))

          const fire = yield* Effect.forkChild(
            Effect.all([...Array.from({ length: writers }, () => writer), sealing], { concurrency: "unbounded" })
          )
          const share = Math.ceil(enough / (blows + crashes))
          for (let done = 1; done <= blows + crashes; done++) {
            // the next one falls when so much more was acknowledged, and for every third a head was signed
            while (acknowledged.size < done * share || signed.length < done / 3) yield* Effect.sleep("5 millis")
            yield* done % Math.floor(blows / crashes) === 0 ? crash : blow
          }
          yield* Fiber.interrupt(fire)

          // what is left is sealed by one that nobody disturbs
          const last = yield* Effect.gen(function* () {
            const sealer = yield* Sealer.make(settings)
            yield* sealer.check(keys)
            yield* sealer.round(keys)
            return yield* naiveRoot(superuserUrl)
          }).pipe(Effect.provide(services), Effect.scoped, Effect.retry(Schedule.spaced("50 millis")))

          const rows = yield* query(
            superuserUrl,
            "select entity_id::text as id from platform.audit_log where actor = 'operator/fire'"
          )
          const written = rows.map(({ id }) => String(id))
          expect(new Set(written).size).toBe(written.length)
          const inLog = new Set(written)
          expect([...acknowledged].filter((id) => !inLog.has(id))).toEqual([])
          expect(written.filter((id) => rolledBack.has(id))).toEqual([])
          const [{ entries } = {}] = yield* query(
            superuserUrl,
            "select count(*)::int4 as entries from platform.audit_log"
          )
          expect(last.size).toBe(entries)
          expect(yield* query(superuserUrl, "select * from platform.audit_verify_tree(null, null, null)")).toEqual([])
          expect(yield* query(superuserUrl, "select * from platform.audit_verify_window(null, null)")).toEqual([])

          expect(signed.length).toBeGreaterThanOrEqual(blows / 3)
          const leaves = (yield* leavesOf(superuserUrl)).map(({ hash }) => hash as Uint8Array)
          for (const { root, size } of signed)
            expect([size, sameHash(rootHash(leaves.slice(0, size)), root)]).toEqual([size, true])
        }),
      300_000
    )
  }
)
