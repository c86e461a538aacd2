/**
 * Versions of one object as faces of the same rows. The first version owns the table; a later one names a version whose rows
 * it shares (`sharesRowsWith`) and is a view over that table, its new columns added to it. Pure.
 *
 * What the table must be follows from all versions that share it at once (`Family`): a column for each field of any of
 * them, the bounds of every version, NOT NULL where one of them requires a value. So what is compared, planned and approved
 * is the one table, and whichever version is applied, the same is wanted.
 */
import type { Face } from "../../domain/Face.ts"
import type { Fault } from "../../domain/Fault.ts"
import type { Field } from "../../domain/Field.ts"
import { formatPath, pgTableOf } from "../../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import { merged } from "./FaceMerge.ts"

/** A version that shares the rows. */
export interface Member {
  readonly id: number
  readonly path: string
  readonly version: string
  /** Its table or view. */
  readonly relation: string
  readonly spec: SchemaDefinitionSpec
  /** The column that each of its fields is. The owner's have their fields' names. */
  readonly columns: ReadonlyMap<string, string>
}

/** A bound that another version sets for a column, beside the one that the column has by itself. */
export interface OtherBounds {
  /** Under its column's name. */
  readonly field: Field
  readonly version: string
}

/** Everything that the table of some versions is made of. */
export interface Family {
  readonly storage: number
  /** The owner first, the others by version. */
  readonly members: readonly [Member, ...ReadonlyArray<Member>]
  /** The version that is applied. */
  readonly wanted: Member
  /** The owner's path with the columns of all versions as its fields. */
  readonly spec: SchemaDefinitionSpec
  readonly bounds: ReadonlyArray<OtherBounds>
  /** Whether its rows are no other version's, nor ever were. */
  readonly alone: boolean
  /** The fields that were served last, the owner's first, by the columns that they are. */
  readonly before: ReadonlyMap<string, Field>
  /** Of the version that is applied. */
  readonly last: ReadonlyArray<Field>
  /** Columns that other versions than the one that is applied let be empty without a default of their own. */
  readonly optional: ReadonlyMap<string, ReadonlyArray<string>>
  /** Names that a column had. */
  readonly formerly: ReadonlyMap<string, ReadonlyArray<string>>
  /** What columns are called now that were called otherwise when they were last kept. */
  readonly nameNow: (column: string) => string
  /** The tables that refs point to, by path; where it is not said, a path's own name. */
  readonly tables: ReadonlyMap<string, string>
  /** The place that a column has among the fields of the version that is applied. */
  readonly place: (column: string, index: number) => ReadonlyArray<PropertyKey>
}

/** A version as the mirror has it. */
export interface KnownVersion {
  readonly id: number
  readonly path: string
  /** Whose table it is; undefined where it is its own. */
  readonly owner: number | undefined
  readonly storage: number
  readonly relation: string
  readonly serving: SchemaDefinitionSpec | undefined
  /** The fields that it had when it was last served. */
  readonly fields: ReadonlyArray<Field>
  /** How it is, or was, served; undefined where it was never one of several. */
  readonly face: Face | undefined
}

export const versionOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1)
const numberOf = (path: string): number => Number(versionOf(path).slice(1))

const latestOf = (versions: ReadonlyArray<KnownVersion>): KnownVersion | undefined =>
  [...versions].sort((a, b) => numberOf(b.path) - numberOf(a.path))[0]

/** With which version rows are to be shared; why not. */
export type Sharing =
  | { readonly _tag: "Own" }
  | { readonly _tag: "With"; readonly version: KnownVersion }
  /** What it says of whose rows it shows is another than it was. */
  | { readonly _tag: "Fixed"; readonly detail: string }
  /** The version is not there, or not served. */
  | { readonly _tag: "Absent"; readonly detail: string }

/** Decides with which of the versions of an object this one shares its rows. Decided once: later it says the same. */
export const sharingOf = (spec: SchemaDefinitionSpec, versions: ReadonlyArray<KnownVersion>): Sharing => {
  const path = formatPath(pathOfDefinition(spec))
  const asked = spec.sharesRowsWith
  const self = versions.find((one) => one.path === path)
  const others = versions.filter((one) => one.path !== path)
  const named = others.find((one) => versionOf(one.path) === asked)
  const served = others.filter((one) => one.serving !== undefined)
  if (self !== undefined && self.owner === undefined) {
    return asked === undefined || asked === "none"
      ? { _tag: "Own" }
      : { _tag: "Fixed", detail: `${path} has a table of its own, and its records stay there` }
  }
  if (self !== undefined) {
    const owner = others.find((one) => one.id === self.owner)
    if (asked === "none") return { _tag: "Fixed", detail: `its records are those of ${owner?.path}` }
    if (owner?.serving === undefined)
      return { _tag: "Absent", detail: `${owner?.path}, whose table it is, is not there` }
    if (asked !== undefined && named?.storage !== self.storage) {
      return { _tag: "Fixed", detail: `its records are those of ${owner.path}` }
    }
    // its own fields are known; what is new in it is judged by the version before it, and at first by the latest
    const among = served.filter((one) => one.storage === self.storage)
    const earlier = among.filter((one) => self.face !== undefined && numberOf(one.path) < numberOf(path))
    return {
      _tag: "With",
      version: (named?.serving === undefined ? undefined : named) ?? latestOf(earlier) ?? latestOf(among) ?? owner
    }
  }
  if (asked === "none" || (asked === undefined && others.length === 0)) return { _tag: "Own" }
  if (asked !== undefined) {
    return named?.serving === undefined
      ? { _tag: "Absent", detail: `${asked}, whose records it is to show, is not there` }
      : { _tag: "With", version: named }
  }
  const latest = latestOf(served)
  return latest === undefined
    ? {
        _tag: "Absent",
        detail: `${others[0]?.path} has records and is not there: apply it again, or say sharesRowsWith: none`
      }
    : { _tag: "With", version: latest }
}

/** Which column each field of a new face is, judged by the version it shares rows with. */
const matched = (
  spec: SchemaDefinitionSpec,
  known: ReadonlyMap<string, string>,
  base: Member
): ReadonlyMap<string, string> => {
  const own = new Set(spec.fields.map((field) => field.name))
  const columns = new Map<string, string>()
  for (const { name, renamedFrom = [] } of spec.fields) {
    const before = renamedFrom.find((former) => known.has(former) && !own.has(former))
    const there = renamedFrom.find((former) => base.columns.has(former))
    // the version it shares with may be the later one, and know this name as a former one
    const later = base.spec.fields.find((field) => field.renamedFrom?.includes(name) === true && !own.has(field.name))
    const column =
      known.get(name) ??
      (before === undefined ? undefined : known.get(before)) ??
      base.columns.get(name) ??
      (there === undefined ? undefined : base.columns.get(there)) ??
      (later === undefined ? undefined : base.columns.get(later.name))
    columns.set(name, column ?? name)
  }
  return columns
}

/** What the family of a version is made of. */
export interface Parts {
  readonly spec: SchemaDefinitionSpec
  readonly id: number
  readonly versions: ReadonlyArray<KnownVersion>
  readonly sharing: Extract<Sharing, { readonly _tag: "Own" | "With" }>
  readonly storage: number
  /** The columns that the table has; none where there is no table. */
  readonly actual: ReadonlySet<string>
  readonly tables: ReadonlyMap<string, string>
}

/** The family, and what its versions have against each other. */
export const familyOf = (parts: Parts): { readonly family: Family; readonly faults: ReadonlyArray<Fault> } => {
  const { actual, id, sharing, spec, storage, tables, versions } = parts
  const path = formatPath(pathOfDefinition(spec))
  const siblings = versions.filter((one) => one.path !== path && one.storage === storage)
  const isOwner = sharing._tag === "Own"
  const ownerRow = siblings.find((one) => one.owner === undefined)
  const ownerSpec = isOwner ? spec : (ownerRow?.serving ?? spec)

  // the owner's columns have its fields' names; a new name takes the versions that share the column along
  const owned = new Set(ownerSpec.fields.map((field) => field.name))
  const isRenamed = (was: string, now: string) => !owned.has(was) && !(actual.has(was) && actual.has(now))
  const nameNow = (column: string): string =>
    ownerSpec.fields.find((field) => field.renamedFrom?.includes(column) === true && isRenamed(column, field.name))
      ?.name ?? column

  const before = versions.find((one) => one.path === path)
  const formerly = new Map<string, Set<string>>()
  for (const { face } of [...siblings, ...(before === undefined ? [] : [before])]) {
    for (const { formerly: names, name } of face?.columns ?? []) {
      const now = nameNow(name)
      const those = formerly.get(now) ?? new Set()
      formerly.set(now, those)
      for (const one of [name, ...names]) if (one !== now) those.add(one)
    }
  }
  for (const { name, renamedFrom = [] } of ownerSpec.fields) {
    formerly.set(name, new Set([...renamedFrom, ...(formerly.get(name) ?? [])]))
  }

  const knownColumns = ({ face, fields }: KnownVersion): ReadonlyMap<string, string> =>
    face === undefined
      ? new Map(fields.map((field) => [field.name, nameNow(field.name)]))
      : new Map(
          face.columns.flatMap(({ field, name }) => (field === undefined ? [] : [[field, nameNow(name)] as const]))
        )
  const memberOf = (row: KnownVersion, serving: SchemaDefinitionSpec): Member => ({
    id: row.id,
    path: row.path,
    version: versionOf(row.path),
    relation: row.relation,
    spec: serving,
    columns:
      row.owner === undefined ? new Map(serving.fields.map((field) => [field.name, field.name])) : knownColumns(row)
  })
  const others = siblings.flatMap((row) => (row.serving === undefined ? [] : [memberOf(row, row.serving)]))
  const base = sharing._tag === "Own" ? undefined : others.find((one) => one.path === sharing.version.path)
  const wanted: Member = {
    id,
    path,
    version: spec.version,
    relation: pgTableOf(pathOfDefinition(spec)),
    spec,
    columns:
      base === undefined
        ? new Map(spec.fields.map((field) => [field.name, field.name]))
        : matched(spec, before?.face === undefined ? new Map() : knownColumns(before), base)
  }
  const owner = isOwner ? wanted : others.find((one) => one.id === ownerRow?.id)
  const rest = [...others, ...(isOwner ? [] : [wanted])]
    .filter((one) => one !== owner)
    .sort((a, b) => numberOf(a.path) - numberOf(b.path))
  const members: Family["members"] = [owner ?? wanted, ...rest]
  // The columns of versions that are gone keep what they hold. Nobody writes them any more but by their defaults, so they
  // ask for no value that would not come, and two that are alike are in nobody's way.
  const kept = siblings.flatMap((row) => {
    if (row.serving !== undefined) return []
    const columns = knownColumns(row)
    return row.fields.map((field) => ({
      ...field,
      name: columns.get(field.name) ?? field.name,
      required: field.required && field.default !== undefined,
      unique: false
    }))
  })
  const { bounds, columns, faults, uniqueConstraints } = merged(members, wanted, kept, formerly)
  const places = new Map(spec.fields.map((field, index) => [wanted.columns.get(field.name) ?? field.name, index]))
  const isOne = members.length === 1 && kept.length === 0 && siblings.length === 0
  const last = new Map<string, Field>()
  const inOrder = [...versions].filter((one) => one.storage === storage || one === before)
  for (const row of inOrder.sort((a, b) => Number(a.owner !== undefined) - Number(b.owner !== undefined))) {
    const columns = new Map(
      (row.face?.columns ?? []).flatMap(({ field, name }) => (field === undefined ? [] : [[field, name] as const]))
    )
    for (const field of row.fields) {
      const name = columns.get(field.name) ?? field.name
      if (!last.has(name)) last.set(name, { ...field, name })
    }
  }
  const { uniqueConstraints: _, ...rest0 } = members[0].spec
  return {
    family: {
      storage,
      members,
      wanted,
      spec: isOne
        ? spec
        : { ...rest0, fields: columns, ...(uniqueConstraints.length === 0 ? {} : { uniqueConstraints }) },
      bounds,
      alone: isOne,
      before: last,
      last: before?.fields ?? [],
      formerly: new Map([...formerly].map(([name, names]) => [name, [...names]])),
      optional: optionalOf(members, wanted),
      nameNow,
      tables,
      place: (column, index) => {
        if (isOne) return ["fields", index]
        const at = places.get(column)
        return at === undefined ? ["fields"] : ["fields", at]
      }
    },
    faults
  }
}

const optionalOf = (members: ReadonlyArray<Member>, wanted: Member): ReadonlyMap<string, ReadonlyArray<string>> => {
  const found = new Map<string, Array<string>>()
  for (const { columns, spec, version } of members.filter((one) => one !== wanted)) {
    for (const field of spec.fields) {
      if (field.required || field.default !== undefined) continue
      const column = columns.get(field.name) ?? field.name
      found.set(column, [...(found.get(column) ?? []), version])
    }
  }
  return found
}

/** The fields that a version was served with and has no longer: whoever uses them is refused. */
export const goneFields = (spec: SchemaDefinitionSpec, before: ReadonlyArray<Field>): ReadonlyArray<string> => {
  const now = new Set(spec.fields.map((field) => field.name))
  return before.map((field) => field.name).filter((name) => !now.has(name))
}
