/** A sealer as it lives for a test: started, checked and run once over a database of its own, with a folder to publish to. */
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ConfigProvider, Effect, Layer, type Scope } from "effect"
import { expect } from "vitest"
import type { AuditKeys } from "../../src/operator/evidence/AuditKeys.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import type { KeptCheckpoint } from "../../src/postgres/Evidence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { configOf, query, type TestDatabase } from "../support/Database.ts"

export const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-published-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

export const servicesOf = (database: TestDatabase, variables: Readonly<Record<string, string>> = {}) =>
  Fence.layerOf({ holder: "test", source: "folder" }).pipe(
    Layer.provideMerge(OperatorSql.layer),
    Layer.provideMerge(ConfigProvider.layer(configOf(database, variables)))
  )

/** Runs something as the operator of a database and leaves no connection behind. */
export const on = <A, E>(database: TestDatabase, effect: Effect.Effect<A, E, Fence | OperatorSql | Scope.Scope>) =>
  Effect.scoped(Effect.provide(effect, servicesOf(database)))

export const sealed = Effect.fnUntraced(function* (
  keys: AuditKeys,
  settings: Partial<Sealer.SealerSettings> = {},
  until: (made: KeptCheckpoint) => Effect.Effect<void> = () => Effect.void
) {
  const sealer = yield* Sealer.make({ publishDir: undefined, witnesses: [], outside: undefined, ...settings })
  yield* sealer.check(keys)
  const made = yield* sealer.round(keys)
  if (made === undefined) throw new Error("there was nothing to seal")
  yield* until(made)
  return made
})

/** Waits for what another fiber does. */
export const eventually = (look: () => Promise<boolean>) =>
  Effect.promise(() => expect.poll(look, { timeout: 60_000, interval: 20 }).toBe(true))

export const kept = (database: TestDatabase) =>
  query(
    database.superuserUrl,
    "select epoch, size::int4 as size, origin, cosignatures, published_at is not null as published from platform.audit_checkpoints order by epoch, size"
  )

/** Waits until a checkpoint is in the folder and the database knows. */
export const published = (database: TestDatabase, folder: string) => (made: KeptCheckpoint) =>
  eventually(async () => {
    const text = await readFile(join(folder, "checkpoint"), "utf8").catch(() => "")
    const rows = await Effect.runPromise(kept(database))
    return text.startsWith(made.note) && rows.some((row) => row.size === made.size && row.published)
  })
