/** Applies the migrations to a database, as the tests' harness needs it. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Migrations from "../../src/postgres/Migrations.ts"

/** Runs every migration with the owner's credentials. */
export const migrate = (url: string, rolePrefix = ""): Effect.Effect<void, Migrations.MigrationFailed> =>
  Effect.asVoid(Migrations.run({ url: Redacted.make(url), rolePrefix }))
