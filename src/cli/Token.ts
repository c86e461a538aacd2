/** `velocity token`: a token of the development issuer, which `velocity dev` trusts where a Domain names no AuthStrategy. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { Console, Duration, Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { developmentKeyFile, openDevelopmentIssuer } from "../access/DevelopmentIssuer.ts"
import { isName } from "../domain/Identity.ts"
import { dataFlag, failed, noDevelopment } from "./Settings.ts"

const units = { s: Duration.seconds, m: Duration.minutes, h: Duration.hours, d: Duration.days } as const

const DurationText = Schema.String.check(
  Schema.isPattern(/^[1-9][0-9]{0,5}(s|m|h|d)$/u, { message: "a duration such as 90s, 10m, 12h or 7d" })
)

const durationOf = (text: string): Duration.Duration =>
  units[text.slice(-1) as keyof typeof units](Number(text.slice(0, -1)))

/** `a,b,c` as its parts, empty ones dropped. */
export const commaSeparated = (text: string): ReadonlyArray<string> =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")

const parted = (text: string): readonly [string, string] => {
  const at = text.indexOf("=")
  return [text.slice(0, at), text.slice(at + 1)]
}

export const token = Command.make(
  "token",
  {
    actor: Flag.String("actor").pipe(
      Flag.withDescription("Whom the token speaks for (its subject)"),
      Flag.filter(
        (text) => isName(text),
        () => "a name of 1 to 255 characters"
      ),
      Flag.withMetavar("NAME")
    ),
    roles: Flag.String("roles").pipe(
      Flag.withDescription("The roles it carries, separated by commas; none unless said"),
      Flag.withMetavar("A,B"),
      Flag.withDefault("")
    ),
    attributes: Flag.String("attribute").pipe(
      Flag.withDescription("An attribute for row filters; may be said again"),
      Flag.withMetavar("NAME=VALUE"),
      Flag.filter(
        (text) => text.indexOf("=") > 0,
        () => "name=value, such as store_id=s1"
      ),
      Flag.atLeast(0)
    ),
    expires: Flag.String("expires").pipe(
      Flag.withDescription("How long it lasts, e.g. 90s, 10m, 12h"),
      Flag.withMetavar("DURATION"),
      Flag.withSchema(DurationText),
      Flag.withDefault("12h")
    ),
    data: dataFlag
  },
  Effect.fnUntraced(function* (options) {
    // a key of its own would sign what nobody believes
    if (!existsSync(join(options.data, developmentKeyFile))) return yield* failed(noDevelopment(options.data), 2)
    const issuer = yield* openDevelopmentIssuer(options.data).pipe(Effect.mapError((error) => failed(error.message, 2)))
    const text = yield* issuer.sign({
      subject: options.actor,
      roles: commaSeparated(options.roles),
      attributes: Object.fromEntries(options.attributes.map(parted)),
      expiresIn: durationOf(options.expires)
    })
    yield* Console.log(text)
  })
).pipe(
  Command.withDescription("Print a token signed by the local development issuer"),
  Command.withExamples([
    { command: "velocity token --actor alice --roles buyer", description: "A buyer, for twelve hours" },
    {
      command: "velocity token --actor bob --roles store --attribute store_id=s1 --expires 10m",
      description: "Somebody who sees one store's rows, for ten minutes"
    }
  ])
)
