/** The root of the command line: `velocity` and its subcommands, one file each. */
import { Console, Effect, Layer } from "effect"
import { CliOutput, Command } from "effect/cli"
import { api } from "./Api.ts"
import { apiKey } from "./ApiKey.ts"
import { audit } from "./Audit.ts"
import { crd } from "./Crd.ts"
import { dev } from "./Dev.ts"
import { doctor } from "./Doctor.ts"
import { environmentHelp } from "./Environment.ts"
import { migrate } from "./Migrate.ts"
import { operator } from "./Operator.ts"
import { orphan } from "./Orphan.ts"
import { record } from "./Record.ts"
import { schema } from "./Schema.ts"
import { token } from "./Token.ts"

/** The version of the package; a test keeps it equal to package.json. */
export const version = "0.1.0"

const root = Command.make("velocity").pipe(
  Command.withDescription("Apply one SchemaDefinition and get a table, an API, history and an audit log that hold"),
  Command.withExamples([
    { command: "velocity dev", description: "The whole product on a laptop" },
    { command: "velocity token --actor alice --roles buyer", description: "A token for it" },
    { command: "velocity record list acme/geo/atlas/country/v1", description: "Records, as a table" },
    { command: "velocity schema plan -f order.yaml", description: "What applying it would do to the table" },
    { command: "velocity audit verify", description: "Check the audit log" }
  ]),
  Command.withSubcommands([dev, api, operator, migrate, doctor, token, apiKey, schema, orphan, record, audit, crd])
)

/** The library's help, and on the root page the variables and exit codes as well. */
const formatter = Layer.effect(
  CliOutput.Formatter,
  Effect.sync(() => {
    const usual = CliOutput.defaultFormatter()
    return {
      ...usual,
      formatHelpDoc: (doc) => {
        const page = usual.formatHelpDoc(doc)
        return doc.usage.startsWith("velocity <") || doc.usage.startsWith("velocity [") || doc.usage === "velocity"
          ? `${page}\n${environmentHelp()}\n`
          : page
      }
    } satisfies CliOutput.Formatter
  })
)

/** Wrong usage is told in a line or two on stderr, not behind a page of help. */
const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.flatMap(CliOutput.Formatter, (format) =>
          Console.error(`${format.formatErrors(event.errors).trim()}\n\nSee ${event.commandPath.join(" ")} --help`)
        )
      : CliOutput.defaultPresenter.present(event)
})

export const run = Command.run(root, { version }).pipe(Effect.provide(presenter), Effect.provide(formatter))
