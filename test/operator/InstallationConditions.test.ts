/** What is said of the installation as a whole: written once where it is new, and by whoever knows it. */
import { layer } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { expect } from "vitest"
import { verifyDay } from "../../src/operator/evidence/LogVerification.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { sweep } from "../../src/operator/retention/PartitionManager.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { say } from "../../src/operator/state/InstallationConditions.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { Database, query, withDatabase } from "../support/Database.ts"
import { writePlatform } from "../support/Sealing.ts"

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))

const said = Effect.gen(function* () {
  const { superuserUrl } = yield* Database
  const [row] = yield* query(
    superuserUrl,
    "select conditions, updated_at::text as at from platform.resource_status where kind = 'Installation'"
  )
  const conditions = (row?.conditions ?? []) as ReadonlyArray<Readonly<Record<string, string>>>
  return { at: row?.at, of: (type: string) => conditions.find((one) => one.type === type), count: conditions.length }
})

layer(withDatabase(services), { excludeTestServices: true })("the installation's conditions", (it) => {
  it.effect("tell what the schedules found, each its own", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      yield* writePlatform(operatorUrl, 5)
      yield* sweep
      yield* verifyDay()
      const sound = yield* said
      expect(sound.count).toBe(2)
      expect(sound.of("PartitionsAhead")).toMatchObject({ status: "True", reason: "MonthsReady" })
      expect(sound.of("AuditVerified")).toMatchObject({ status: "True", reason: "Sound" })
      // nothing new is nothing written
      yield* sweep
      yield* verifyDay()
      expect((yield* said).at).toBe(sound.at)

      const alter = (actor: string) =>
        query(
          superuserUrl,
          `do $$ begin execute 'alter table platform.audit_log disable trigger all';
             update platform.audit_log set actor = '${actor}' where chain = 'platform' and (lane, seq) =
               (select lane, max(seq) from platform.audit_log where chain = 'platform' group by lane limit 1);
             execute 'alter table platform.audit_log enable always trigger refuse_row';
             execute 'alter table platform.audit_log enable always trigger refuse_truncate'; end $$`
        )
      yield* alter("operator/somebody")
      yield* verifyDay()
      const tampered = yield* said
      expect(tampered.of("AuditVerified")).toMatchObject({
        status: "False",
        reason: "Tampered",
        message: expect.stringContaining("1 entries")
      })
      expect(tampered.of("AuditVerified")?.lastTransitionTime).not.toBe(sound.of("AuditVerified")?.lastTransitionTime)
      expect(tampered.of("PartitionsAhead")).toEqual(sound.of("PartitionsAhead"))
    })
  )

  it.effect("tell that nothing is sealed without a key, and what makes one", () =>
    Effect.gen(function* () {
      yield* Sealer.run({ publishDir: undefined, witnesses: [], outside: undefined }).pipe(
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({})))
      )
      expect((yield* said).of("AuditSealed")).toMatchObject({
        status: "False",
        reason: "NoKey",
        message: expect.stringContaining("velocity audit keygen")
      })
    })
  )

  it.effect("keep the time of the transition while only the message is another", () =>
    Effect.gen(function* () {
      const condition = { type: "AuditSealed", status: "False", reason: "RolledBack", message: "one" } as const
      yield* say(condition)
      const before = (yield* said).of("AuditSealed")
      yield* say({ ...condition, message: "two" })
      const after = (yield* said).of("AuditSealed")
      expect(after).toEqual({ ...before, message: "two" })
      yield* say({ ...condition, status: "True", reason: "Sealing" })
      expect((yield* said).of("AuditSealed")?.lastTransitionTime).not.toBe(before?.lastTransitionTime)
    })
  )
})
