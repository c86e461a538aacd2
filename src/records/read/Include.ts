/**
 * Related records in an answer: to-one under the name of the ref field, in the place of the id; to-many under
 * `{object}.{ref}`, as `{items, next_cursor}` with at most 100 of them. Two levels, all in the one statement of the
 * request, by lateral joins over the rows of the page.
 *
 * What is shown of a related record is what its own record type says: its gate, row filters, field access and masks. One
 * that the caller may not see, and one that is deleted, is null. A ref field that he cannot read, on either side, cannot be
 * followed.
 */
import { grantsOf } from "../../domain/Access.ts"
import type { Field } from "../../domain/Field.ts"
import type { Caller } from "../../domain/Identity.ts"
import { quoteName } from "../../postgres/Statement.ts"
import { gateSql } from "../type/Entering.ts"
import type { FieldPlan } from "../type/FieldPlan.ts"
import type { Bind } from "../type/Parameters.ts"
import { type Projection, quoteText, tableRow } from "../type/Projection.ts"
import type { Peers, RecordType } from "../type/RecordType.ts"
import { rowFilterSql } from "../type/RowFilterSql.ts"
import type { QueryFaults } from "./QuerySql.ts"

/** Records of a to-many include, at most; a cursor leads to the others. */
export const includedAtMost = 100
const levels = 2

/** A type that refers to another, and by which field. */
export interface Reference {
  readonly type: RecordType
  readonly field: Field
}

/** Who is around a record type, and what the caller may on those. */
export interface Surroundings {
  readonly peers: Peers
  /** The types of the domain that refer to this one. */
  readonly referring: (type: RecordType) => ReadonlyArray<Reference>
  /** The caller's roles for reading another type, where bindings are narrowed to some; else those he has here. */
  readonly rolesOn?: ((path: string) => ReadonlyArray<string>) | undefined
}

/** One related type of a query. */
export interface Included {
  /** The member that it fills: `supplier`, or `order-line.order`. */
  readonly name: string
  readonly many: boolean
  readonly type: RecordType
  /** Of the referring side. */
  readonly ref: FieldPlan
  readonly roles: ReadonlyArray<string>
  /** Whether any of those roles may read the type at all. */
  readonly granted: boolean
  readonly projection: Projection
  chosen: Set<string> | undefined
  readonly children: Array<Included>
}

/** What a query shows, beside which rows. */
export interface Shown {
  readonly chosen: ReadonlySet<string> | undefined
  readonly included: ReadonlyArray<Included>
}

interface Side {
  readonly type: RecordType
  readonly projection: Projection
}

class Resolver {
  readonly root: Array<Included> = []
  private readonly caller: Caller
  private readonly around: Surroundings
  private readonly faults: QueryFaults

  constructor(caller: Caller, around: Surroundings, faults: QueryFaults) {
    this.caller = caller
    this.around = around
    this.faults = faults
  }

  private related(type: RecordType, name: string, many: boolean, ref: FieldPlan): Included {
    const here = this.caller.roles
    const roles = this.around.rolesOn?.(type.path).filter((role) => here.includes(role)) ?? here
    return {
      name,
      many,
      type,
      ref,
      roles,
      granted: grantsOf(type.def.spec, "read").some((grant) => roles.includes(grant.role)),
      projection: type.projection(roles),
      chosen: undefined,
      children: []
    }
  }

  /** Follows a path from a type; the names of a to-one take one step, those of a to-many two. */
  follow(from: Side, steps: ReadonlyArray<string>, among: Array<Included>, level = 1): void {
    const [first = "", second] = steps
    const place = ["include"]
    if (level > levels) {
      this.faults.add("query_too_large", place, `includes go ${levels} levels deep`)
      return
    }
    const plan = from.type.fields.get(first)
    const one = plan?.target === undefined ? undefined : this.around.peers(plan.target)
    if (plan?.type === "ref") {
      if (!from.projection.clear.has(first)) {
        this.faults.add("field_not_readable", place, `${first} cannot be read by you`)
        return
      }
      if (one === undefined) {
        this.faults.add("unknown_field", place, `what ${first} refers to is not served`)
        return
      }
      this.descend(
        this.enter(among, first, () => this.related(one, first, false, plan)),
        steps.slice(1),
        level
      )
      return
    }
    const many = this.around
      .referring(from.type)
      .find(({ field, type }) => type.def.spec.object === first && field.name === second)
    const ref = many?.type.fields.get(many.field.name)
    if (many === undefined || ref === undefined) {
      this.faults.add("unknown_field", place, `${steps.join(".")} leads to no record type that you may read`)
      return
    }
    const name = `${first}.${second}`
    const fresh = this.related(many.type, name, true, ref)
    // without a right to read that type, nothing is told of its fields either
    if (fresh.granted && !fresh.projection.clear.has(ref.name)) {
      this.faults.add("field_not_readable", place, `${name} cannot be read by you`)
      return
    }
    this.descend(
      this.enter(among, name, () => fresh),
      steps.slice(2),
      level
    )
  }

  private enter(among: Array<Included>, name: string, make: () => Included): Included {
    const known = among.find((one) => one.name === name)
    if (known !== undefined) return known
    const fresh = make()
    among.push(fresh)
    return fresh
  }

  private descend(into: Included, rest: ReadonlyArray<string>, level: number): void {
    if (rest.length > 0) this.follow(into, rest, into.children, level + 1)
  }
}

/** The node that a dotted name of `select` begins with, and the rest of the name. */
const nodeOf = (name: string, among: ReadonlyArray<Included>): readonly [Included, string] | undefined => {
  for (const node of among) {
    if (!name.startsWith(`${node.name}.`)) continue
    const rest = name.slice(node.name.length + 1)
    return nodeOf(rest, node.children) ?? [node, rest]
  }
  return undefined
}

/** What `include` and `select` ask for; what is wrong with them is added to `faults`. */
export const resolveShown = (
  from: Side,
  caller: Caller,
  asked: { readonly include: ReadonlyArray<string>; readonly select?: ReadonlyArray<string> | undefined },
  around: Surroundings,
  faults: QueryFaults
): Shown => {
  const resolver = new Resolver(caller, around, faults)
  for (const path of asked.include) resolver.follow(from, path.split("."), resolver.root)
  let chosen: Set<string> | undefined
  for (const name of asked.select ?? []) {
    const [node, rest] = nodeOf(name, resolver.root) ?? [undefined, name]
    const type = node?.type ?? from.type
    if (!type.fields.has(rest)) {
      const detail = name.includes(".")
        ? `${name} is no field of a record that include asks for`
        : `there is no field ${name}`
      faults.add("unknown_field", ["select"], detail)
    } else if (node === undefined) {
      chosen ??= new Set()
      chosen.add(rest)
    } else {
      node.chosen ??= new Set()
      node.chosen.add(rest)
    }
  }
  return { chosen, included: resolver.root }
}

/** Every related type, however deep. */
export const allIncluded = (nodes: ReadonlyArray<Included>): ReadonlyArray<Included> =>
  nodes.flatMap((node) => [node, ...allIncluded(node.children)])

/** The joins of some includes, and what they leave to a select list. */
export interface Joined {
  readonly joins: string
  /** What stands in the place of a to-one's id, by field. */
  readonly instead: ReadonlyMap<string, string>
  /** The members of to-many includes, for the end of the select list. */
  readonly members: ReadonlyArray<string>
  /** The versions of what is included, as one text; an ETag depends on them. */
  readonly versions: string
}

const nothing = { items: "'[]'::json", cursor: "null::text" }

const manyObject = ({ cursor, items }: typeof nothing): string =>
  `json_build_object('items', ${items}, 'next_cursor', ${cursor})`

/** Makes the SQL of a query's includes. */
export class IncludeSql {
  private joined = 0
  private readonly caller: Caller
  private readonly bind: Bind
  private readonly marker: () => string
  private readonly numbers: ReadonlyMap<Included, number>

  /**
   * @param marker the place of a text that no record can hold; what follows it becomes a cursor when the answer is made
   */
  constructor(caller: Caller, bind: Bind, marker: () => string, numbers: ReadonlyMap<Included, number>) {
    this.caller = caller
    this.bind = bind
    this.marker = marker
    this.numbers = numbers
  }

  /** Joins related records to the row `alias`. */
  join(nodes: ReadonlyArray<Included>, alias: string): Joined {
    const joins: Array<string> = []
    const instead = new Map<string, string>()
    const members: Array<string> = []
    const versions: Array<string> = []
    for (const node of nodes) {
      const value = node.granted
        ? this.lateral(node, alias, joins, versions)
        : node.many
          ? manyObject(nothing)
          : "null::json"
      if (node.many) members.push(`${value} as ${quoteName(node.name)}`)
      else instead.set(node.name, value)
    }
    return {
      joins: joins.join(""),
      instead,
      members,
      versions: versions.length === 0 ? "''" : `concat_ws('|', ${versions.join(", ")})`
    }
  }

  private lateral(node: Included, alias: string, joins: Array<string>, versions: Array<string>): string {
    const id = ++this.joined
    const [row, found] = [`_t${id}`, `_i${id}`]
    const inner = this.join(node.children, row)
    const list = [node.projection.columns(tableRow(row), node.chosen, inner.instead), ...inner.members].join(", ")
    const filter = rowFilterSql(
      node.type.rowFilter("read", node.roles),
      (plan) => `_s.${plan.column}`,
      (value) => this.bind(value(this.caller))
    )
    const related = node.many ? `_s.${node.ref.column} = ${alias}.id` : `_s.id = ${alias}.${node.ref.column}`
    const conditions = [
      gateSql(node.type.def, "read"),
      related,
      "_s.deleted_at is null",
      ...(filter === undefined ? [] : [filter])
    ].join(" and ")
    versions.push(`${found}._v`)
    if (!node.many) {
      joins.push(` left join lateral (
  select row_to_json(_b.*) as _j, concat_ws(':', ${row}.version, ${inner.versions}) as _v
  from (select _s.* from ${node.type.table} _s where ${conditions}) ${row}${inner.joins} cross join lateral (select ${list}) _b
) ${found} on true`)
      return `${found}._j`
    }
    const cursor = `case when max(_m._n) > ${includedAtMost} then concat(${this.marker()}::text, '/', ${this.numbers.get(node)}, '/', ${alias}.id, '/', (array_agg(_m.id) filter (where _m._n = ${includedAtMost}))[1], '/') end`
    const items = `coalesce(json_agg(_m._j order by _m._n) filter (where _m._n <= ${includedAtMost}), '[]'::json)`
    joins.push(` left join lateral (
  select ${manyObject({ items, cursor })} as _j, string_agg(_m._v, ',' order by _m._n) as _v
  from (
    select ${row}._n, ${row}.id, row_to_json(_b.*) as _j, concat_ws(':', ${row}.id, ${row}.version, ${inner.versions}) as _v
    from (select row_number() over () as _n, _o.* from (
      select _s.* from ${node.type.table} _s where ${conditions} order by _s.id limit ${includedAtMost + 1}) _o
    ) ${row}${inner.joins} cross join lateral (select ${list}) _b
  ) _m
) ${found} on true`)
    return `${found}._j`
  }
}

/** What an answer's shape depends on beside its row: part of an ETag. */
export const shownIdentity = ({ chosen, included }: Shown): string => {
  const node = (one: Included): string =>
    `${quoteText(one.name)}(${one.granted}|${one.projection.fingerprint}|${one.chosen === undefined ? "" : [...one.chosen].sort()}|${one.children.map(node)})`
  return `${chosen === undefined ? "" : [...chosen].sort()}|${included.map(node)}`
}
