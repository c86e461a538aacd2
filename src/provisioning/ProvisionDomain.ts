/**
 * A domain in Postgres: its schema, its four roles, its chain of the audit log, its mirror row. Schema and roles go with the
 * last of its records where it was deleted under `Delete`; its chain stays, and the path and the name with it.
 *
 * Roles belong to the whole server: one that is there already is taken only where the operator made it (in another
 * database), which `platform.domain_admit` checks. Grants to domain roles happen here, once for a domain, and never for a
 * definition or a binding, because after a GRANT of a role every backend reads its memberships anew (fine print 48).
 */
import { Effect } from "effect"
import type { DomainSpec } from "../domain/Domain.ts"
import { chainOf, domainNameFaults, pgSchemaOf, rolesOf } from "../domain/Names.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { defaultDatabase } from "../postgres/Databases.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { lockDomain, reserveName, setLockTimeout } from "./table/Names.ts"
import { actorOf, foreignOrigin, type Origin, originParams } from "./table/Origin.ts"
import { type ProvisionRefused, refused } from "./table/ProvisionRefused.ts"
import { rolePrefixOf } from "./table/RolePrefixOf.ts"
import { specHash } from "./table/SpecHash.ts"
import { inOneBlock, nameList, quoteName, quoteText } from "./table/SqlText.ts"

/** A domain as it is wanted. */
export interface WantedDomain {
  readonly spec: DomainSpec
  readonly origin: Origin
  /** The id of the strategy that its callers prove themselves by, resolved; none: nobody can. */
  readonly authStrategy: string | undefined
}

export interface DomainOutcome {
  readonly _tag: "Unchanged" | "Applied"
  readonly chain: string
  readonly pgSchema: string
}

const rowSql = `select pg_schema, auth_strategy, spec_hash, source, namespace, name, to_regnamespace(quote_ident(pg_schema)) is not null as there
  from platform.domains where chain = $1`

const faultsOf = ({ origin: _, spec }: WantedDomain, prefix: string): ProvisionRefused | undefined => {
  const faults = domainNameFaults(spec, prefix).map((one) => ({ ...one, pointer: `/spec${one.pointer}` }))
  if (faults.length > 0) return refused("Invalid", faults.map((one) => one.detail).join("; "), faults)
  if (spec.database !== defaultDatabase) {
    return refused("UnknownDatabase", `no database ${spec.database} is configured`)
  }
  return undefined
}

/** Whether the mirror row says that nothing is to do. Reads one row and takes no lock. */
export const isCurrent = (tx: Tx, wanted: WantedDomain): Effect.Effect<boolean, DatabaseFailure> =>
  Effect.map(tx.query(statement(rowSql, [chainOf(wanted.spec)])), ({ rows: [row] }) => matches(row, wanted))

const matches = (row: Readonly<Record<string, unknown>> | undefined, wanted: WantedDomain): boolean =>
  row !== undefined &&
  row.spec_hash === specHash(wanted.spec) &&
  (row.auth_strategy ?? undefined) === wanted.authStrategy &&
  row.source === wanted.origin.source &&
  foreignOrigin(row, wanted.origin, chainOf(wanted.spec)) === undefined

/** A role that is made unless it is there; two databases of one server may do so at once. */
const roleSql = (role: string): string =>
  `begin
  if not exists (select from pg_catalog.pg_roles where rolname = ${quoteText(role)}) then
    create role ${quoteName(role)} nologin;
  end if;
exception when duplicate_object or unique_violation then null;
end`

/** A membership with all three options said, granted unless it is there with them. */
const memberSql = (role: string, member: string): string =>
  `if not exists (select from pg_catalog.pg_auth_members m
    where m.roleid = to_regrole(${quoteText(quoteName(role))}) and m.member = to_regrole(${quoteText(member)})
      and not m.inherit_option and m.set_option and not m.admin_option) then
    grant ${quoteName(role)} to ${member} with inherit false, set true, admin false;
  end if`

const makeSchema = Effect.fnUntraced(function* (tx: Tx, schema: string, prefix: string) {
  const roles = rolesOf(schema)
  const all = [roles.owner, roles.reader, roles.writer, roles.admin]
  yield* tx.query(
    inOneBlock([
      ...all.map(roleSql),
      memberSql(roles.owner, `${prefix}velocity_operator`),
      ...[roles.reader, roles.writer, roles.admin].map((role) => memberSql(role, `${prefix}velocity_api`))
    ])
  )
  yield* tx.query(statement("select platform.domain_admit($1)::text as admitted", [schema]))
  const { rows } = yield* tx.query(
    statement("select pg_get_userbyid(nspowner)::text as owner from pg_catalog.pg_namespace where nspname = $1", [
      schema
    ])
  )
  const [there] = rows
  if (there === undefined) {
    yield* tx.query(statement(`create schema ${quoteName(schema)} authorization ${quoteName(roles.owner)}`))
  } else if (there.owner !== roles.owner) {
    return yield* refused("NotOurs", `the schema ${schema} is there and belongs to ${String(there.owner)}`)
  }
  yield* asOwner(tx, schema, (owner) =>
    owner.query(
      inOneBlock([
        `revoke all on schema ${quoteName(schema)} from public`,
        `grant usage on schema ${quoteName(schema)} to ${nameList([roles.reader, roles.writer, roles.admin])}`,
        "alter default privileges revoke execute on functions from public",
        "alter default privileges revoke usage on types from public"
      ])
    )
  )
})

/**
 * Makes the domain what is wanted, with mirror row, audit entry and notification in the same transaction; nothing at all
 * where it is that already.
 */
export const applyDomain = Effect.fn("Provision.applyDomain")(function* (tx: Tx, wanted: WantedDomain) {
  const { authStrategy, origin, spec } = wanted
  const chain = chainOf(spec)
  const prefix = yield* rolePrefixOf(tx)
  const schema = pgSchemaOf(spec, prefix)
  const faults = faultsOf(wanted, prefix)
  if (faults !== undefined) return yield* faults
  // before the domain's lock, which whoever provisions in it may hold for long: while a domain waits, others do
  yield* tx.query(setLockTimeout)
  yield* lockDomain(tx, chain)
  const [row] = (yield* tx.query(statement(rowSql, [chain]))).rows
  const conflict = row === undefined ? undefined : foreignOrigin(row, origin, chain)
  if (conflict !== undefined) return yield* conflict
  if (matches(row, wanted)) return { _tag: "Unchanged", chain, pgSchema: schema } satisfies DomainOutcome

  const params = [
    chain,
    schema,
    authStrategy ?? null,
    spec.deletionPolicy,
    JSON.stringify(spec),
    specHash(spec),
    ...originParams(origin)
  ]
  if (row === undefined) {
    yield* reserveName(tx, schema, chain)
    yield* tx.query(
      statement(
        `insert into platform.domains (chain, pg_schema, auth_strategy, deletion_policy, spec, spec_hash, source, namespace, name, uid, resource_generation)
         values ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10, $11)`,
        params
      )
    )
  } else {
    yield* tx.query(
      statement(
        `update platform.domains set auth_strategy = $3, deletion_policy = $4, spec = $5::jsonb, spec_hash = $6, source = $7,
           namespace = $8, name = $9, uid = $10, resource_generation = $11, updated_at = now()
         where chain = $1 and pg_schema = $2`,
        params
      )
    )
  }
  if (row?.there !== true) yield* makeSchema(tx, schema, prefix)
  yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`domain:${chain}`]))
  yield* AuditChain.insert(tx, {
    chain,
    actor: actorOf(origin),
    action: "operator.domain.apply",
    outcome: "ok",
    payload: { schema, specHash: specHash(spec), authStrategy: authStrategy ?? null }
  })
  return { _tag: "Applied", chain, pgSchema: schema } satisfies DomainOutcome
})

/** Takes back what `makeSchema` made for everybody, and then the schema; it must be empty. */
const dropSchemaSql = (schema: string): ReadonlyArray<string> => [
  "alter default privileges grant execute on functions to public",
  "alter default privileges grant usage on types to public",
  `drop schema ${quoteName(schema)}`
]

/** A role that goes unless it has something still: in another database of the server. */
const dropRoleSql = (role: string): string =>
  `begin
  drop role if exists ${quoteName(role)};
exception when dependent_objects_still_exist then null;
end`

/**
 * Drops schema and roles of a domain that was deleted under `Delete`, once nothing is in the schema any more: what was kept of
 * definitions that were deleted before keeps it.
 */
export const dropEmptyDomain = Effect.fn("Provision.dropEmptyDomain")(function* (tx: Tx, chain: string, actor: string) {
  const { rows } = yield* tx.query(
    statement(
      `select d.pg_schema from platform.domains d join pg_catalog.pg_namespace n on n.nspname = d.pg_schema
       where d.chain = $1 and d.spec is null and d.deletion_policy = 'Delete'
         and not exists (select from pg_catalog.pg_depend o where o.refclassid = 'pg_catalog.pg_namespace'::regclass and o.refobjid = n.oid)`,
      [chain]
    )
  )
  const [row] = rows
  if (row === undefined) return
  const schema = String(row.pg_schema)
  yield* tx.query(setLockTimeout)
  yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock(dropSchemaSql(schema))))
  yield* tx.query(inOneBlock(Object.values(rolesOf(schema)).map(dropRoleSql)))
  yield* AuditChain.insert(tx, { chain, actor, action: "operator.domain.drop", outcome: "ok", payload: { schema } })
})

/**
 * Ends believing anybody in a domain whose resource is gone. Its data and its names stay; where it says `Delete` and nothing
 * is in it, its schema and its roles go. `keeps`: they stay whatever it says, since nobody was seen to delete it.
 */
export const withdrawDomain = Effect.fn("Provision.withdrawDomain")(function* (tx: Tx, origin: Origin, keeps = false) {
  const { rows } = yield* tx.query(
    statement(
      `update platform.domains set auth_strategy = null, spec = null, spec_hash = null, updated_at = now(),
         deletion_policy = case when $4::boolean then 'Retain' else deletion_policy end
       where source = $1 and namespace = $2 and name = $3 and spec is not null returning chain`,
      [origin.source, origin.namespace, origin.name, keeps]
    )
  )
  for (const row of rows) {
    const gone = String(row.chain)
    yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`domain:${gone}`]))
    yield* AuditChain.insert(tx, {
      chain: gone,
      actor: actorOf(origin),
      action: "operator.domain.withdraw",
      outcome: "ok"
    })
    yield* dropEmptyDomain(tx, gone, actorOf(origin))
  }
})
