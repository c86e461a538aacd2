/**
 * What a definition grants: operations with their row filters, and what of each field a set of roles may see and write.
 * Shared by the policies in Postgres and by the statements of the API, so that both say the same.
 */
import type { Field } from "./Field.ts"
import type { Operation } from "./Operation.ts"
import type { RowCondition, SchemaDefinitionSpec } from "./SchemaDefinition.ts"

/** A role that grants an operation; its filters are ANDed, and none means every row. */
export interface Grant {
  readonly role: string
  readonly filters: ReadonlyArray<RowCondition>
}

/**
 * The roles that grant an operation, each with its row filters. Somebody with several of them gets the union of their
 * rows; a role that is not among them never widens anything.
 */
export const grantsOf = (spec: SchemaDefinitionSpec, operation: Operation): ReadonlyArray<Grant> =>
  spec.access.roles
    .filter((grant) => grant.operations.includes(operation))
    .map(({ role }) => ({
      role,
      filters: (spec.access.rowFilters ?? []).filter((filter) => filter.role === role).map((filter) => filter.filter)
    }))

/** Whether every row passes whoever is granted the operation: then neither policy nor statement carries a condition. */
export const isUnfiltered = (grants: ReadonlyArray<Grant>): boolean =>
  grants.every((grant) => grant.filters.length === 0)

const meets = (listed: ReadonlyArray<string> | undefined, roles: ReadonlyArray<string>): boolean =>
  listed === undefined || listed.some((role) => roles.includes(role))

/** How much of a field is shown. */
export type Visibility = "clear" | "partial" | "hidden"

const maskedByDefault = new Set(["financial", "personal"])

/**
 * How much of a field these roles see. `access.read` hides it from all others; a mask, or the sensitivity `financial` or
 * `personal` (which means redact where no mask is given), covers it for all that `mask.unmaskedFor` does not name.
 */
export const visibilityOf = (field: Field, roles: ReadonlyArray<string>): Visibility => {
  if (!meets(field.access?.read, roles)) return "hidden"
  const masked = field.mask !== undefined || maskedByDefault.has(field.sensitivity ?? "public")
  if (!masked || field.mask?.unmaskedFor?.some((role) => roles.includes(role)) === true) return "clear"
  return field.mask?.strategy === "partial" ? "partial" : "hidden"
}

/** Whether these roles see the field as it is: the condition for filtering, sorting, testing and copying it. */
export const readsClearly = (field: Field, roles: ReadonlyArray<string>): boolean =>
  visibilityOf(field, roles) === "clear"

/** Whether these roles may set the field, given that they may write the record. */
export const mayWrite = (field: Field, roles: ReadonlyArray<string>): boolean => meets(field.access?.write, roles)
