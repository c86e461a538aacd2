/**
 * Names of roles where two installations share one server (ADR-020): roles belong to the server and not to a database,
 * so each installation puts a prefix of its own in front of Velocity's roles, and of its domains' schemas, which name
 * the domains' roles.
 *
 * The prefix is said once, to `velocity migrate` (`VELOCITY_ROLE_PREFIX`); everybody else has it in the name that they
 * log in with. All SQL of ours is written with the plain names and goes through `prefixed` on its way.
 */
import * as Config from "effect/Config"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/** Our roles that belong to no domain, in SQL and in the regular expressions of SQL. */
const platformRole = /\bvelocity_(?=\(?(?:api|auditor|gateway|history|operator|owner|privacy|sealer|tenant)\b)/gu

/** SQL with the names of this installation's roles. */
export const prefixed = (sql: string, prefix: string): string =>
  prefix === "" ? sql : sql.replace(platformRole, `${prefix}velocity_`)

/** The prefix in a login's name: `stage_` of `stage_velocity_api`; none where a pooler gives logins other names. */
export const prefixOfLogin = (login: string): string =>
  /^([a-z][a-z0-9_]*_)velocity_(?:api|operator)$/u.exec(login)?.[1] ?? ""

/** The prefix in a connection's URL. */
export const prefixOfUrl = (url: Redacted.Redacted): string => {
  const text = Redacted.value(url)
  return URL.canParse(text) ? prefixOfLogin(decodeURIComponent(new URL(text).username)) : ""
}

/**
 * `VELOCITY_ROLE_PREFIX`, none by default: a letter, then letters, digits and `_`, which it ends with; 16 at most, so
 * that schemas keep 40 bytes. No organisation of another installation on the server may begin with it.
 */
export const rolePrefix: Config.Config<string> = Config.schema(
  Schema.String.check(
    Schema.isPattern(/^(?:[a-z][a-z0-9_]{0,14}_)?$/u, {
      message: "at most 16 of a-z, 0-9 and _, beginning with a letter and ending with _, such as stage_"
    })
  ),
  "VELOCITY_ROLE_PREFIX"
).pipe(Config.withDefault(""))
