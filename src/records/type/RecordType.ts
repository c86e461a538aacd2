/**
 * A definition, compiled: everything about a record type that no request changes. Made once when the definition is first
 * asked for; requests only read it.
 *
 * What depends on the caller depends on his roles alone, so it is compiled once for each set of roles that turns up
 * (`projection`, `rowFilter`) and found again by a map look-up.
 */
import { boundMeaning, type ConstraintMeaning, meanings, stateKeys } from "../../domain/Face.ts"
import { type Field, type FieldType, fieldTypes, isFilterable, pgType, systemColumns } from "../../domain/Field.ts"
import { constraintName, type DomainRoles, formatPath, historyViewOf, rolesOf } from "../../domain/Names.ts"
import type { Operation } from "../../domain/Operation.ts"
import { operatorsOf, type QueryOperator } from "../../domain/Query.ts"
import type { ServedDefinition } from "../../domain/ServedDefinition.ts"
import { quoteName } from "../../postgres/Statement.ts"
import type { Constrained } from "./Failures.ts"
import type { FieldPlan } from "./FieldPlan.ts"
import { compileProjection, type Projection, visibilitiesOf } from "./Projection.ts"
import { compileRowFilter, type RowFilter } from "./RowFilterSql.ts"

/** See the module. */
export interface RecordType extends Constrained {
  readonly def: ServedDefinition
  /** `acme/geo/atlas/city/v1`. */
  readonly path: string
  readonly chain: string
  /** The path apart from its version: rows, history and ids belong to it. */
  readonly storage: string
  readonly generation: number
  /** The domain's roles in Postgres. */
  readonly roles: DomainRoles
  /** Quoted, with its schema. */
  readonly table: string
  readonly historyView: string
  readonly fields: ReadonlyMap<string, FieldPlan>
  /** What these roles see. */
  readonly projection: (roles: ReadonlyArray<string>) => Projection
  /** To which rows these roles may do an operation. */
  readonly rowFilter: (operation: Operation, roles: ReadonlyArray<string>) => RowFilter
  readonly constraint: (name: string) => ConstraintMeaning | undefined
  readonly fieldOf: (column: string) => string | undefined
}

/** The record types beside one, by path; undefined where nothing is served. */
export type Peers = (path: string) => RecordType | undefined

const systemTypes: Readonly<Record<(typeof systemColumns)[number], FieldType>> = {
  id: "uuid",
  version: "integer",
  created_at: "timestamp",
  created_by: "string",
  updated_at: "timestamp",
  updated_by: "string",
  deleted_at: "timestamp"
}

const operatorSets = new Map<FieldType, ReadonlySet<QueryOperator>>(
  fieldTypes.map((type) => [type, new Set(operatorsOf(type))])
)

const planOf = (field: Field, system: boolean, target: string | undefined, keys: ReadonlyArray<string>): FieldPlan => ({
  name: field.name,
  column: quoteName(field.name),
  type: field.type,
  cast: field.type === "number" && field.float !== true ? "numeric" : pgType(field),
  field,
  system,
  nullable: !field.required,
  filterable: isFilterable(field),
  sortable: field.type !== "json" && field.type !== "bytes",
  operators: operatorSets.get(field.type) ?? new Set(),
  target,
  keys
})

const systemPlan = (name: (typeof systemColumns)[number]): FieldPlan =>
  planOf(
    {
      name,
      type: systemTypes[name],
      required: name !== "deleted_at",
      unique: name === "id",
      indexed: name === "id",
      filterable: true
    },
    true,
    undefined,
    [name]
  )
const systemPlans = systemColumns.map(systemPlan)

/** What each constraint of the table means, by its name in Postgres. */
const constraintsOf = ({ face, pgTable, spec }: ServedDefinition): ReadonlyMap<string, ConstraintMeaning> => {
  if (face !== undefined) return new Map(Object.entries(face.constraints))
  const found = new Map<string, ConstraintMeaning>()
  const add = (
    kind: "uq" | "ck" | "fk" | "ix",
    fields: ReadonlyArray<string>,
    purpose: string,
    meaning: Omit<ConstraintMeaning, "fields">
  ) => found.set(constraintName(kind, pgTable, fields, purpose), { fields, ...meaning })
  for (const field of spec.fields) {
    if (field.unique) add("uq", [field.name], "", meanings.unique)
    else if (field.indexed) add("ix", [field.name], "", meanings.index)
    if (field.ref !== undefined) add("fk", [field.name], "", meanings.foreignKey)
    for (const purpose of ["min", "max", "minLength", "maxLength", "pattern", "enum"] as const) {
      if (field[purpose] !== undefined) {
        add("ck", [field.name], purpose, { kind: "check", ...boundMeaning(field, purpose) })
      }
    }
  }
  for (const { fields } of spec.uniqueConstraints ?? []) add("uq", fields, "", meanings.uniqueTogether)
  return found
}

/** Sets of roles that are kept; callers with more roles than a definition knows can make any number of sets. */
const maxRoleSets = 1000

const remembered = <A>(compute: (roles: ReadonlyArray<string>) => A): ((roles: ReadonlyArray<string>) => A) => {
  const known = new Map<string, A>()
  return (roles) => {
    // a role's name has no comma
    const key = roles.join()
    const found = known.get(key)
    if (found !== undefined) return found
    if (known.size >= maxRoleSets) known.clear()
    const fresh = compute(roles)
    known.set(key, fresh)
    return fresh
  }
}

/** Compiles a definition as it is served. Pure; knows nothing of other definitions, which are asked for by path. */
export const compile = (def: ServedDefinition): RecordType => {
  const { spec } = def
  const { app, domain, org } = spec
  const targetOf = ({ ref }: Field) =>
    ref === undefined ? undefined : formatPath({ org, app, domain, object: ref.object, version: ref.version })
  const plans = [
    ...systemPlans,
    ...spec.fields.map((field) => planOf(field, false, targetOf(field), stateKeys(def, field)))
  ]
  const fields = new Map(plans.map((plan) => [plan.name, plan]))
  const constraints = constraintsOf(def)
  const classes = new Map<string, Projection>()
  const filters = new Map<Operation, (roles: ReadonlyArray<string>) => RowFilter>()
  const schema = quoteName(def.pgSchema)
  return {
    def,
    path: def.path,
    chain: def.chain,
    storage: def.storage,
    generation: def.generation,
    roles: rolesOf(def.pgSchema),
    table: `${schema}.${quoteName(def.pgTable)}`,
    historyView: `${schema}.${quoteName(historyViewOf(def.pgTable))}`,
    fields,
    projection: remembered((roles) => {
      const visibility = visibilitiesOf(def, roles)
      const key = visibility.join()
      const found = classes.get(key) ?? compileProjection(def, visibility)
      classes.set(key, found)
      return found
    }),
    rowFilter: (operation, roles) => {
      let compiled = filters.get(operation)
      if (compiled === undefined) {
        compiled = remembered((some) => compileRowFilter(spec, fields, operation, some))
        filters.set(operation, compiled)
      }
      return compiled(roles)
    },
    constraint: (name) => constraints.get(name),
    fieldOf: (column) => (def.face === undefined ? column : def.face.columns.find(({ name }) => name === column)?.field)
  }
}
