/** The gate of ADR-007: no start over a violation, closed while there is one, open again when it is repaired. */
import { ConfigProvider, Duration, Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { IsolationGate, IsolationViolated } from "../../src/server/IsolationGate.ts"
import * as Server from "../../src/server/Server.ts"
import { configOf, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { start } from "./Running.ts"

const scope = Scope.makeUnsafe()
let database: TestDatabase
const asSuperuser = (sql: string) => Effect.runPromise(query(database.superuserUrl, sql))
const seed = () => asSuperuser("grant insert on platform.audit_log to velocity_api")
const repair = () => asSuperuser("revoke insert on platform.audit_log from velocity_api")
const config = () => ConfigProvider.layer(configOf(database))

beforeAll(async () => {
  database = await Effect.runPromise(Scope.provide(freshDatabase, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

describe("the gate", () => {
  it("keeps the server from starting over a violation, and says what repairs it", async () => {
    await seed()
    try {
      const layer = Server.layer({ host: "127.0.0.1", port: 0 }).pipe(Layer.provide(config()))
      const error = await Effect.runPromise(Effect.flip(Effect.scoped(Layer.build(layer))))
      expect(error).toBeInstanceOf(IsolationViolated)
      const { message, violations } = error as IsolationViolated
      expect(violations.length).toBeGreaterThan(0)
      expect(message).toMatch(/audit_log/u)
      expect(message).toMatch(/revoke/iu)
    } finally {
      await repair()
    }
  })

  it("closes while it runs, names each violation once a look, and opens again", async () => {
    const logs: Array<unknown> = []
    const gated = await start(
      IsolationGate.layerOf(IsolationCheck.check(), Duration.millis(20)).pipe(
        Layer.provide(ApiSql.layer),
        Layer.provide(config())
      ),
      logs
    )
    const gate = gated.get(IsolationGate)
    expect(gate.closed()).toBeUndefined()
    await seed()
    await expect.poll(() => gate.closed()?.code).toBe("not_ready")
    expect(JSON.stringify(logs)).toContain("audit_log")
    const found = await gated.run(gate.judge)
    for (const violation of found) await asSuperuser(violation.repair)
    await expect.poll(() => gate.closed()).toBeUndefined()
    await gated.stop()
  })
})
