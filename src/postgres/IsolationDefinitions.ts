/**
 * Whether the policies of tenants' tables are what the served definitions ask for: the part of the isolation check that
 * the catalogue alone cannot know. Pure, over rows as the check reads them.
 *
 * A definition without row filters asks for policies that are `true` (anything else makes every scan slow). Where an
 * operation has row filters, its policy names a role of the caller; so a filter that was opened by hand shows.
 *
 * One that is being withdrawn (`leaving`) has its policies still, and nobody knows any more what it asked for.
 */
import type { Violation } from "./IsolationRules.ts"
import { quoteName } from "./Statement.ts"

type Row = Readonly<Record<string, unknown>>

/** What of a definition's `access` matters here. */
interface Access {
  readonly roles?: ReadonlyArray<{ readonly role: string; readonly operations: ReadonlyArray<string> }>
  readonly rowFilters?: ReadonlyArray<{ readonly role: string }>
}

/** The operations that a command of Postgres carries out; deleting and restoring are updates. */
const operationsOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  SELECT: ["read"],
  INSERT: ["create"],
  UPDATE: ["update", "delete", "restore"],
  DELETE: [],
  ALL: ["read", "create", "update", "delete", "restore"]
}

const isFiltered = (access: Access, command: string): boolean => {
  const filtered = new Set((access.rowFilters ?? []).map((filter) => filter.role))
  const operations = operationsOf[command] ?? []
  return (access.roles ?? []).some(
    (grant) => filtered.has(grant.role) && grant.operations.some((operation) => operations.includes(operation))
  )
}

/** The violations among `policies` (of pg_policies) for `definitions` (of platform.schema_defs). */
export const judgeDefinitions = (
  definitions: ReadonlyArray<Row>,
  policies: ReadonlyArray<Row>
): ReadonlyArray<Violation> => {
  // a table has the policies of every version that shows its rows
  const byTable = new Map<string, ReadonlyArray<Row>>()
  for (const row of definitions) {
    const table = `${row.pg_schema}.${row.pg_table}`
    byTable.set(table, [...(byTable.get(table) ?? []), row])
  }
  return policies.flatMap((policy): ReadonlyArray<Violation> => {
    const those = byTable.get(`${policy.schema}.${policy.table}`)
    const object = `${quoteName(String(policy.name))} on ${quoteName(String(policy.schema))}.${quoteName(String(policy.table))}`
    if (those === undefined) {
      const detail = "no definition that is served has this table"
      return [{ code: "unexpected_policy", object, detail, repair: `DROP POLICY ${object}` }]
    }
    const path = those.map((row) => String(row.path)).join(", ")
    const repair = `-- velocity schema apply: the definition of ${path}, again`
    const accesses = those.map((row) => (row.access ?? {}) as Access)
    return [policy.qual, policy.with_check].flatMap((expression): ReadonlyArray<Violation> => {
      if (typeof expression !== "string") return []
      if (
        accesses.some((access) => isFiltered(access, String(policy.cmd))) &&
        !expression.includes("platform.has_role(")
      ) {
        return [
          { code: "open_policy", object, detail: `${path} has row filters, and the policy is ${expression}`, repair }
        ]
      }
      return !those.some((row) => row.leaving === true) &&
        accesses.every((access) => (access.rowFilters ?? []).length === 0) &&
        expression !== "true"
        ? [
            {
              code: "unexpected_policy",
              object,
              detail: `${path} has no row filters, and the policy is ${expression}`,
              repair
            }
          ]
        : []
    })
  })
}
