/** `velocity doctor`: checks a database as the API's login and says what to type. */
import { Config, Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as IsolationCheck from "../postgres/IsolationCheck.ts"
import { failed } from "./Settings.ts"

export const doctor = Command.make(
  "doctor",
  {
    url: Flag.Redacted("database-url").pipe(
      Flag.withDescription("How velocity_api reaches the database"),
      Flag.withFallbackConfig(Config.Redacted("VELOCITY_API_DATABASE_URL"))
    )
  },
  Effect.fnUntraced(function* ({ url }) {
    const violations = yield* IsolationCheck.checkAt(url).pipe(
      Effect.mapError((error) => failed(`the database could not be checked: ${error.message}`, 2))
    )
    for (const violation of violations) yield* Console.log(`${IsolationCheck.render(violation)}\n`)
    if (violations.length > 0) return yield* failed(`${violations.length} ways past row-level security; see above`)
    yield* Console.log("nothing lets the API past row-level security")
  })
).pipe(
  Command.withDescription("Check a database for every way past row-level security, with the SQL that closes it"),
  Command.withExamples([
    {
      command: "VELOCITY_API_DATABASE_URL=postgres://velocity_api@host/velocity velocity doctor",
      description: "As the API would at its start"
    }
  ])
)
