/**
 * `velocity api-key create|revoke|list`: keys by hand, where no ApiKey asks for them. They speak to the database as
 * `velocity_operator`, so whoever has its URL can make and end keys; the log names the account that did.
 */
import { randomUUID } from "node:crypto"
import { userInfo } from "node:os"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { platformChain } from "../access/Authorization.ts"
import { keyEnvironmentConfig } from "../access/KeyAuthenticator.ts"
import { ApiKeySpec as ApiKeySchema, type ApiKeySpec, apiKeyFaults } from "../domain/ApiKey.ts"
import { velocityNamespace } from "../domain/AuthStrategy.ts"
import { newKey } from "../domain/KeyText.ts"
import { parseChain } from "../domain/Names.ts"
import { decodeStrictly } from "../domain/Resource.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as ApiKeys from "../provisioning/ApiKeys.ts"
import { operatorUrlFlag, unreachable, withOperator } from "./OperatorDatabase.ts"
import { type Column, outputFlag, printRows } from "./Output.ts"
import { type CommandFailed, failed } from "./Settings.ts"
import { startFailure } from "./StartFailure.ts"
import { commaSeparated } from "./Token.ts"

/** What the rows of keys are marked with that were made here: no operator looks after them. */
const commandSource = "command"

const by = (): string => `cli/${userInfo().username}`

const domainFlag = Flag.String("domain").pipe(
  Flag.withDescription("The domain that it opens, org/app/domain; platform for the platform"),
  Flag.withMetavar("PATH"),
  Flag.filter(
    (text) => text === platformChain || parseChain(text) !== undefined,
    () => "org/app/domain, or platform"
  )
)

const list = (name: string, description: string, metavar: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.withDefault(""))

interface Asked {
  readonly domain: string
  readonly actor: string
  readonly roles: string
  readonly object: Option.Option<string>
  readonly operations: string
  readonly from: string
  readonly expires: Option.Option<string>
}

/** The spec that the flags say, judged as an ApiKey's is. */
const specOf = (asked: Asked): ApiKeySpec | CommandFailed => {
  const [org, app, domain] = asked.domain === platformChain ? [] : asked.domain.split("/")
  const many = (key: string, text: string) => (text === "" ? {} : { [key]: commaSeparated(text) })
  const scope = {
    ...Option.match(asked.object, { onNone: () => ({}), onSome: (object) => ({ object }) }),
    ...many("operations", asked.operations)
  }
  const decoded = decodeStrictly(ApiKeySchema, {
    ...(org === undefined ? {} : { org, app, domain }),
    actor: asked.actor,
    ...many("roles", asked.roles),
    ...(Object.keys(scope).length === 0 ? {} : { scopes: [scope] }),
    ...many("ipAllowlist", asked.from),
    ...Option.match(asked.expires, { onNone: () => ({}), onSome: (expiresAt) => ({ expiresAt }) })
  })
  const faults =
    "faults" in decoded
      ? decoded.faults
      : apiKeyFaults(decoded.value, org === undefined ? velocityNamespace : asked.domain)
  return "faults" in decoded || faults.length > 0
    ? failed(faults.map(({ detail, pointer }) => `${pointer.slice(1)}: ${detail}`.replace(/^: /u, "")).join("\n"), 2)
    : decoded.value
}

/** A failure of ours as it is; one of the database's as that. */
const told = (error: CommandFailed | { readonly _tag: string; readonly message: string }): CommandFailed =>
  error._tag === "CommandFailed" ? (error as CommandFailed) : unreachable(error)

const create = Command.make(
  "create",
  {
    name: Flag.String("name").pipe(
      Flag.withDescription("What it is called in its domain"),
      Flag.withMetavar("NAME"),
      Flag.filter(
        (text) => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/u.test(text),
        () => "lower-case letters, digits and hyphens, 63 at most"
      )
    ),
    domain: domainFlag,
    actor: Flag.String("actor").pipe(
      Flag.withDescription("Whom it speaks for: {strategy}/{subject}, of an AuthStrategy of type apikey"),
      Flag.withMetavar("ACTOR")
    ),
    roles: list("roles", "The roles it brings, separated by commas", "A,B"),
    object: Flag.String("object").pipe(
      Flag.withDescription("Narrows all that it may do to records of this object"),
      Flag.withMetavar("NAME"),
      Flag.optional
    ),
    operations: list("operations", "Narrows all that it may do to these operations", "A,B"),
    from: list(
      "from",
      "The addresses and ranges that it is taken from, separated by commas; anywhere unless said",
      "CIDR"
    ),
    expires: Flag.String("expires-at").pipe(
      Flag.withDescription("When it ends, such as 2027-01-31T12:00:00Z; never unless said"),
      Flag.withMetavar("TIME"),
      Flag.optional
    ),
    url: operatorUrlFlag
  },
  Effect.fnUntraced(function* ({ name, url, ...asked }) {
    const spec = specOf(asked)
    if ("exitCode" in spec) return yield* spec
    if (spec.expiresAt !== undefined && Date.parse(spec.expiresAt) <= Date.now()) {
      return yield* failed(`expiresAt: ${spec.expiresAt} is past, and the key would open nothing`, 2)
    }
    const environment = yield* Effect.mapError(keyEnvironmentConfig, startFailure)
    const key = newKey(environment)
    const origin = { source: commandSource, namespace: asked.domain, name }
    const hand: ApiKeys.Hand = { actor: by(), origin }
    const program = Effect.gen(function* () {
      const sql = yield* OperatorSql
      const minting = yield* sql.transaction((tx) =>
        Effect.gen(function* () {
          const fault = yield* ApiKeys.trustFault(tx, spec)
          if (fault !== undefined) return yield* failed(fault.message)
          const { keys, next } = yield* ApiKeys.keysOf(tx, origin)
          const there = keys.find((one) => one.state === "Active")
          if (there !== undefined) {
            const what = `${name} of ${asked.domain} is there already, the key ${there.fingerprint}`
            return yield* failed(`${what}: choose another name, or velocity api-key revoke ${there.fingerprint}`)
          }
          const made = { id: randomUUID(), key, serial: next, secretName: "printed", rotation: null }
          yield* ApiKeys.prepare(tx, spec, made, origin)
          return made
        })
      )
      // shown before it opens anything: one that nobody has seen is never in force
      yield* Console.log(key)
      const isActive = yield* sql.transaction((tx) => ApiKeys.activate(tx, spec, minting, hand))
      if (!isActive)
        return yield* failed("another command made a key of this name meanwhile; the one above opens nothing")
      yield* Console.error(`${minting.id} is in force for ${spec.actor}; it is shown this once`)
    })
    yield* withOperator(url, program).pipe(Effect.mapError(told))
  })
).pipe(
  Command.withDescription("Make an API key and print it, once"),
  Command.withExamples([
    {
      command: "velocity api-key create --name ci --domain acme/geo/atlas --actor keys/ci --roles visitor",
      description: "A key for a machine, from anywhere and without an end"
    },
    {
      command:
        "velocity api-key create --name till --domain acme/geo/atlas --actor keys/till --roles visitor --from 10.0.0.0/8 --expires-at 2027-01-31T12:00:00Z",
      description: "From one network, until one day"
    }
  ])
)

const revoke = Command.make(
  "revoke",
  {
    key: Argument.String("key").pipe(
      Argument.withDescription("The key's id, or its fingerprint, as velocity api-key list shows them; never the key")
    ),
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why, for the audit log"),
      Flag.withMetavar("TEXT"),
      Flag.withDefault("by command")
    ),
    url: operatorUrlFlag
  },
  Effect.fnUntraced(function* ({ key, reason, url }) {
    const program = Effect.flatMap(OperatorSql, (sql) =>
      sql.transaction((tx) =>
        Effect.gen(function* () {
          const { rows } = yield* tx.query(
            statement(
              `select id::text as id, source, namespace, name, state from platform.api_keys
               where id::text = $1 or left(encode(key_hash, 'hex'), 16) = $1`,
              [key]
            )
          )
          const [row] = rows
          if (row === undefined) return yield* failed(`there is no key ${key}`)
          const origin = { source: String(row.source), namespace: String(row.namespace), name: String(row.name) }
          const isOurs = origin.source === commandSource
          const revoked = yield* ApiKeys.revoke(
            tx,
            { _tag: "Some", ids: [String(row.id)], why: reason, departed: isOurs },
            { actor: by(), origin }
          )
          if (revoked === 0)
            return yield* failed(`the key ${key} opens nothing: it is ${String(row.state).toLowerCase()}`)
          return isOurs ? undefined : `${origin.namespace}/${origin.name}`
        })
      )
    )
    const managed = yield* withOperator(url, program).pipe(Effect.mapError(told))
    yield* Console.log(`the key ${key} is revoked`)
    if (managed !== undefined) {
      yield* Console.log(`its ApiKey ${managed} is there still: annotate it with velocity.sh/rotate for another key`)
    }
  })
).pipe(
  Command.withDescription("End an API key at once, by its id or fingerprint"),
  Command.withExamples([
    { command: "velocity api-key revoke 5f3a9c0d1e2b4a68 --reason leaked", description: "At once" }
  ])
)

/** A key as it is listed. */
interface Listed {
  readonly fingerprint: string
  readonly id: string
  readonly domain: string
  readonly actor: string
  readonly roles: ReadonlyArray<string>
  readonly state: string
  readonly ends: string | null
  readonly of: string
}

const columns: ReadonlyArray<Column<Listed>> = [
  { title: "Fingerprint", cell: (one) => one.fingerprint },
  { title: "Domain", cell: (one) => one.domain },
  { title: "Actor", cell: (one) => one.actor },
  { title: "Roles", cell: (one) => one.roles.join(",") },
  { title: "State", cell: (one) => one.state },
  { title: "Ends", cell: (one) => one.ends ?? "never" },
  { title: "Of", cell: (one) => one.of }
]

const listSql = `select left(encode(key_hash, 'hex'), 16) as fingerprint, id::text as id, coalesce(chain, 'platform') as domain, actor, roles,
    case when least(expires_at, retires_at) <= now() and state <> 'Revoked' then 'Expired' else state end as state,
    to_char(least(expires_at, retires_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as ends,
    case when source = '${commandSource}' then name else concat(namespace, '/', name, ' in ', secret_name) end as of
  from platform.api_keys
  where ($1::text is null or coalesce(chain, 'platform') = $1) and ($2::text = 'true' or state in ('Active', 'Retiring'))
  order by domain, actor, created_at`

const listKeys = Command.make(
  "list",
  {
    domain: Flag.optional(domainFlag),
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("Those too that were revoked, or never in force"),
      Flag.withDefault(false)
    ),
    output: outputFlag,
    url: operatorUrlFlag
  },
  Effect.fnUntraced(function* ({ all, domain, output, url }) {
    const { rows } = yield* withOperator(
      url,
      Effect.flatMap(OperatorSql, (sql) => sql.query(statement(listSql, [Option.getOrNull(domain), String(all)])))
    ).pipe(Effect.mapError(told))
    yield* printRows(output, columns, rows as unknown as ReadonlyArray<Listed>, "no keys")
  })
).pipe(
  Command.withDescription("List API keys by their fingerprints; the keys themselves are nowhere"),
  Command.withExamples([{ command: "velocity api-key list --domain acme/geo/atlas", description: "Those in force" }])
)

export const apiKey = Command.make("api-key").pipe(
  Command.withDescription("API keys by hand: make one, end one, list them"),
  Command.withSubcommands([create, revoke, listKeys])
)
