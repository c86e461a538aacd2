/** Applies the migrations to a database, as the tests' harness needs it. */
import { existsSync } from "node:fs"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

const module = new URL("../../src/postgres/Migrations.ts", import.meta.url)

/** Runs every migration with the owner's credentials. */
export const migrate = (url: string): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    if (!existsSync(module)) return
    const migrations = (yield* Effect.promise(() => import("../../src/postgres/Migrations.ts" as string))) as {
      run: (options: { url: Redacted.Redacted }) => Effect.Effect<unknown, unknown>
    }
    yield* migrations.run({ url: Redacted.make(url) })
  })
