/**
 * The names of everything: a record type's path, and what it is called in Postgres.
 *
 * `{org}/{app}/{domain}/{object}/{version}` is the identity everywhere. In Postgres `-` becomes `_`, which two paths may
 * share (`a-b/c` and `a/b-c`); `platform.names` decides who keeps a name. Nothing is ever truncated: a name that would
 * pass PostgreSQL's 63 bytes (NAMEDATALEN - 1) is refused.
 */
import { type Fault, fault } from "./Fault.ts"
import type { Operation } from "./Operation.ts"
import { sha256Hex } from "./Sha256.ts"

/** A DNS label that begins with a letter (RFC 1035), without underscore. */
export const labelPattern = /^[a-z]([-a-z0-9]*[a-z0-9])?$/u
export const labelMaxLength = 40
export const versionPattern = /^v[1-9][0-9]*$/u
export const versionMaxLength = 6
/** `{schema}_reader` must fit into 63 bytes. */
export const schemaMaxLength = 56
/** `{table}_history` must fit into 63 bytes. */
export const tableMaxLength = 55

export interface DomainPath {
  readonly org: string
  readonly app: string
  readonly domain: string
}

/** A record type's identity. */
export interface RecordPath extends DomainPath {
  readonly object: string
  readonly version: string
}

/** `acme/geo/atlas`: the domain's audit chain, and its name in messages. */
export const chainOf = (path: DomainPath): string => `${path.org}/${path.app}/${path.domain}`
/** `acme/geo/atlas/country`: the rows, which all versions of an object share. */
export const storageOf = (path: RecordPath): string => `${chainOf(path)}/${path.object}`
/** `acme/geo/atlas/country/v1`. */
export const formatPath = (path: RecordPath): string => `${storageOf(path)}/${path.version}`

const isLabel = (text: string): boolean => text.length <= labelMaxLength && labelPattern.test(text)
const isVersion = (text: string): boolean => text.length <= versionMaxLength && versionPattern.test(text)

/** The path that a text names, or undefined. */
export const parsePath = (text: string): RecordPath | undefined => {
  const parts = text.split("/")
  const [org = "", app = "", domain = "", object = "", version = ""] = parts
  return parts.length === 5 && [org, app, domain, object].every(isLabel) && isVersion(version)
    ? { org, app, domain, object, version }
    : undefined
}

/** The domain that a text of three parts names, or undefined. */
export const parseChain = (text: string): DomainPath | undefined => {
  const parts = text.split("/")
  const [org = "", app = "", domain = ""] = parts
  return parts.length === 3 && parts.every(isLabel) ? { org, app, domain } : undefined
}

const underscored = (text: string): string => text.replaceAll("-", "_")

/** `acme_geo_atlas`; behind the prefix of an installation that shares its server with others (`stage_`). */
export const pgSchemaOf = (path: DomainPath, prefix = ""): string =>
  `${prefix}${underscored(`${path.org}_${path.app}_${path.domain}`)}`
/** `country_v1`. */
export const pgTableOf = (path: Pick<RecordPath, "object" | "version">): string =>
  underscored(`${path.object}_${path.version}`)
/** The view through which a record type's past is read. */
export const historyViewOf = (table: string): string => `${table}_history`

/** What a transaction may enter; each operation has its tier. */
export type Tier = "reader" | "writer" | "admin"

/** The roles of a domain, all NOLOGIN. */
export interface DomainRoles extends Readonly<Record<Tier, string>> {
  readonly owner: string
}

export const rolesOf = (schema: string): DomainRoles => ({
  owner: `${schema}_owner`,
  reader: `${schema}_reader`,
  writer: `${schema}_writer`,
  admin: `${schema}_admin`
})

const tiers: Readonly<Record<Operation, Tier>> = {
  read: "reader",
  history: "reader",
  create: "writer",
  update: "writer",
  delete: "admin",
  restore: "admin"
}

/** The tier whose Postgres role an operation enters. Record roles never are Postgres roles. */
export const tierOf = (operation: Operation): Tier => tiers[operation]

export type ConstraintKind = "pk" | "uq" | "ck" | "fk" | "ix"

/**
 * The name of a constraint or index: kind and eight hexadecimal digits over what it is for. Names made of table and
 * columns would pass 63 bytes and be cut to the same text; a COMMENT says what each is.
 */
export const constraintName = (
  kind: ConstraintKind,
  table: string,
  columns: ReadonlyArray<string>,
  purpose = ""
): string => `${kind}_${sha256Hex(`${table}|${columns.join(",")}|${purpose}`).slice(0, 8)}`

/** The generated column that is true while a row (or a row's reference) is live; null-able for references. */
export const liveColumn = (field?: string): string =>
  field === undefined ? "_live" : `_live_${sha256Hex(field).slice(0, 8)}`

export const reservedOrgs: ReadonlySet<string> = new Set(["pg", "platform", "velocity"])

/** Postgres refuses schemas that begin with `pg_`; the others are ours. */
export const isReservedOrg = (org: string): boolean => reservedOrgs.has(org) || org.startsWith("pg-")

/** What is wrong with a domain's path, by key. */
export const domainNameFaults = (path: DomainPath, prefix = ""): ReadonlyArray<Fault> => {
  const schema = pgSchemaOf(path, prefix)
  return [
    ...(isReservedOrg(path.org)
      ? [
          fault(
            ["org"],
            "reserved_name",
            `the organisation name ${path.org} is reserved (pg, platform, velocity, pg-…)`
          )
        ]
      : []),
    ...(schema.length > schemaMaxLength
      ? [
          fault(
            ["domain"],
            "name_too_long",
            `the schema ${schema} would have ${schema.length} bytes; org, app and domain together may have ${schemaMaxLength - 2 - prefix.length}`
          )
        ]
      : [])
  ]
}

/** What is wrong with a record type's path, by key. */
export const recordNameFaults = (path: RecordPath): ReadonlyArray<Fault> => {
  const table = pgTableOf(path)
  return [
    ...domainNameFaults(path),
    ...(table.length > tableMaxLength
      ? [
          fault(
            ["object"],
            "name_too_long",
            `the table ${table} would have ${table.length} bytes, and at most ${tableMaxLength} fit`
          )
        ]
      : [])
  ]
}
