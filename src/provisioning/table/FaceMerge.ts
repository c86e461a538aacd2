/**
 * What the table of several versions is made of: their fields laid over each other, column by column. What a view over one
 * table cannot be is found here, and said by field. Pure.
 */
import { type Fault, fault } from "../../domain/Fault.ts"
import type { Field } from "../../domain/Field.ts"
import type { Family, Member, OtherBounds } from "./Faces.ts"

/** A column with the fields that are it, the owner's first. */
interface Claimed {
  readonly name: string
  readonly by: readonly [Claim, ...ReadonlyArray<Claim>]
}

interface Claim {
  readonly member: Member
  readonly field: Field
  readonly index: number
}

const claimsOf = (members: ReadonlyArray<Member>): ReadonlyArray<Claimed> => {
  const claims = new Map<string, [Claim, ...Array<Claim>]>()
  for (const member of members) {
    member.spec.fields.forEach((field, index) => {
      const name = member.columns.get(field.name) ?? field.name
      const claim = { member, field, index }
      const those = claims.get(name)
      if (those === undefined) claims.set(name, [claim])
      else those.push(claim)
    })
  }
  return [...claims].map(([name, by]) => ({ name, by }))
}

/** What of a field decides its column's type; two that differ in it cannot be one column. */
const typeOf = ({ float, precision, scale, type }: Field): string =>
  type === "enum" ? "string" : [type, precision, scale, float].map(String).join()

/**
 * The columns, bounds and unique constraints of the one table, and why there cannot be one, by the fields of the version that
 * is applied. `kept` are columns of versions that are gone.
 */
export const merged = (
  members: Family["members"],
  wanted: Member,
  kept: ReadonlyArray<Field>,
  formerly: ReadonlyMap<string, ReadonlySet<string>>
) => {
  const faults: Array<Fault> = []
  const bounds: Array<OtherBounds> = []
  const [owner] = members
  const claims = claimsOf(members)
  const say = (at: ReadonlyArray<PropertyKey>, code: string, detail: string) =>
    faults.push(fault(["spec", ...at], code, detail))
  const placeOf = ({ by }: Claimed): ReadonlyArray<PropertyKey> => {
    const own = by.find(({ member }) => member === wanted)
    return own === undefined ? ["fields"] : ["fields", own.index]
  }
  const columns = claims.map((claim): Field => {
    const { by, name } = claim
    const at = placeOf(claim)
    const [first] = by
    const lead = first.field
    const doubled = by.filter(({ member }) => member === wanted)
    if (doubled.length > 1) {
      const names = doubled.map(({ field }) => field.name).join(" and ")
      say(at, "shared_column", `${names} would both be the column ${name}`)
    }
    for (const { field, member } of by) {
      if (member === first.member) continue
      const other = member === wanted ? first.member : member
      if (typeOf(field) !== typeOf(lead)) {
        const is = other === first.member ? lead.type : field.type
        say([...at, "type"], "shared_type", `${other.version} has it as ${is}: a view cannot make another type of it`)
      } else if (lead.ref !== undefined && field.ref !== undefined && lead.ref.onDelete !== field.ref.onDelete) {
        say([...at, "ref"], "shared_ref", `${other.version} says another onDelete`)
      } else if (lead.ref !== undefined && field.ref !== undefined && lead.ref.object !== field.ref.object) {
        say(
          [...at, "ref"],
          "shared_ref",
          `${other.version} refers to ${other === first.member ? lead.ref.object : field.ref.object}`
        )
      }
      bounds.push({ field: { ...field, name }, version: member.version })
    }
    const required = by.some(({ field }) => field.required)
    const unique = by.some(({ field }) => field.unique)
    const filled = by.find(({ field }) => field.default !== undefined)?.field.default
    const lacking = members.filter((member) => !by.some((one) => one.member === member))
    if (lacking.length > 0 && required && filled === undefined) {
      const detail = lacking.includes(wanted)
        ? `${first.member.version} requires ${lead.name} and gives no default: it must be in this version too`
        : `records made through ${lacking.map(({ version }) => version).join(", ")} would have no value: give it a default, or let it be optional`
      say(lacking.includes(wanted) ? at : [...at, "required"], "shared_required", detail)
    }
    if (lacking.length > 0 && unique && filled !== undefined) {
      say(
        at,
        "shared_unique",
        `${lead.name} is unique, and records made through ${lacking.map(({ version }) => version).join(", ")} would all have its default`
      )
    }
    const { backfill: _, renamedFrom, ...rest } = lead
    // it is computed from the record as the version that is applied shows it
    const backfill = by.find(({ member }) => member === wanted)?.field.backfill
    return {
      ...rest,
      name,
      required,
      unique,
      indexed: by.some(({ field }) => field.indexed),
      ...(filled === undefined ? {} : { default: filled }),
      ...(backfill === undefined ? {} : { backfill }),
      // only the owner's names are the columns' own
      ...(first.member === owner && renamedFrom !== undefined ? { renamedFrom } : {})
    }
  })
  const there = new Map(columns.map((column) => [column.name, column]))
  for (const claim of claims) {
    const was = [...formerly].find(([now, names]) => now !== claim.name && names.has(claim.name) && there.has(now))
    if (was !== undefined) {
      say(placeOf(claim), "renamed_from", `${claim.name} was the name of ${was[0]}, whose past it would show`)
    }
    for (const { field, member } of claim.by) {
      const other = members
        .filter((one) => one !== member && (one === wanted || member === wanted))
        .find((one) => (one.columns.get(field.name) ?? claim.name) !== claim.name)
      if (other !== undefined && member === wanted) {
        say(placeOf(claim), "shared_column", `${other.version} has another field ${field.name}: give it another name`)
      }
    }
  }
  const uniques = new Map<string, ReadonlyArray<string>>()
  for (const member of members) {
    ;(member.spec.uniqueConstraints ?? []).forEach(({ fields }, index) => {
      const names = fields.map((name) => member.columns.get(name) ?? name)
      const key = [...names].sort().join()
      if (!uniques.has(key)) uniques.set(key, names)
      const alone = names.find((name) => {
        const column = there.get(name)
        const by = claims.find((claim) => claim.name === name)?.by ?? []
        return column?.default !== undefined && members.some((one) => !by.some((each) => each.member === one))
      })
      if (alone !== undefined) {
        const at = member === wanted ? ["uniqueConstraints", index] : ["uniqueConstraints"]
        say(at, "shared_unique", `${alone} has a default, which records made through another version would share`)
      }
    })
  }
  return {
    faults,
    bounds,
    columns: [
      ...columns,
      ...kept.filter(({ name }, index) => !there.has(name) && kept.findIndex((one) => one.name === name) === index)
    ],
    uniqueConstraints: [...uniques.values()].map((fields) => ({ fields }))
  }
}
