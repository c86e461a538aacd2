/**
 * `velocity operator` as a process, killed with -9 between an alert's insert and its delivery: once before any attempt, once
 * in the middle of one. The next process delivers, under the same id.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { expect } from "vitest"
import { scan } from "../../src/operator/anomaly/AnomalyScanner.ts"
import { readEndpoints } from "../../src/operator/anomaly/AnomalySettings.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { start } from "../cli/Run.ts"
import { configOf, freshDatabase, query } from "../support/Database.ts"
import { chainIn, hourAgo, ruleOf, wrote } from "./AnomalyWorld.ts"
import { isSigned, receiver } from "./Receiver.ts"

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

it.live("an alert survives whoever was to deliver it", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { received, replies, url } = yield* receiver("hang")
      const folder = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-killed-"))),
        (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
      )
      const webhooks = join(folder, "webhooks.yaml")
      const manifests = join(folder, "manifests")
      yield* Effect.promise(async () => {
        await writeFile(webhooks, JSON.stringify([{ name: "pager", url, secret }]))
        await mkdir(manifests)
      })
      // the one that raised it ends with its commit, and delivers nothing
      const chain = yield* chainIn(database, "eu")
      yield* wrote(database, [{ chain, at: hourAgo(2) }])
      const { alerts } = yield* Effect.scoped(
        Effect.flatMap(readEndpoints(webhooks), (endpoints) =>
          scan({ rules: [ruleOf({ threshold: 1 })], endpoints, now: Date.now() })
        ).pipe(
          Effect.provide(
            Fence.layerOf({ holder: "first", source: "folder" }).pipe(
              Layer.provide(OperatorSql.layer),
              Layer.provide(ConfigProvider.layer(configOf(database)))
            )
          )
        )
      )
      expect(alerts.length).toBe(1)
      expect(received.length).toBe(0)

      const operator = () =>
        start(["operator", "--manifests", manifests], {
          VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl,
          VELOCITY_ANOMALY_WEBHOOKS: webhooks
        })
      const second = operator()
      yield* Effect.promise(() => expect.poll(() => received.length, { timeout: 60_000 }).toBe(1))
      second.process.kill("SIGKILL")
      yield* Effect.promise(() => second.ended)
      const [claimed] = yield* query(
        database.operatorUrl,
        "select attempts, delivered_at is null as open, next_attempt_at > now() as claimed from platform.anomaly_deliveries"
      )
      expect(claimed).toEqual({ attempts: 1, open: true, claimed: true })

      // the claim of the dead one is over
      yield* query(database.operatorUrl, "update platform.anomaly_deliveries set next_attempt_at = now()")
      replies.splice(0, replies.length, { status: 200 })
      const third = operator()
      const delivered = Effect.map(
        query(
          database.operatorUrl,
          "select attempts, delivered_at is not null as delivered from platform.anomaly_deliveries"
        ),
        ([row]) => row
      )
      yield* Effect.promise(() =>
        expect
          .poll(() => Effect.runPromise(delivered), { timeout: 60_000, interval: 200 })
          .toEqual({ attempts: 2, delivered: true })
      )
      third.process.kill("SIGTERM")
      expect(yield* Effect.promise(() => third.ended)).toMatchObject({ code: 0 })
      expect(received.length).toBe(2)
      expect(new Set(received.map(({ headers }) => headers["webhook-id"])).size).toBe(1)
      expect(new Set(received.map(({ body }) => body)).size).toBe(1)
      expect(received.every((one) => isSigned(one, secret))).toBe(true)
    })
  )
)

it.live("the operator does not start on settings that are wrong, and says what is wrong with them", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const folder = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-killed-"))),
        (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
      )
      const rules = join(folder, "rules.yaml")
      yield* Effect.promise(() => writeFile(rules, "- { name: bulk_reader, threshold: many }\n"))
      const ran = yield* Effect.promise(
        () =>
          start(["operator", "--manifests", folder], {
            VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl,
            VELOCITY_ANOMALY_RULES: rules
          }).ended
      )
      expect(ran.code).toBe(1)
      expect(ran.err).toContain("rule bulk_reader: /threshold must be a number")
    })
  )
)
