/**
 * From a table as the catalogue has it to the table that is wanted: the steps, or why not. Pure.
 *
 * Fields that have a new name are compared under their former one (`wanted`); they are renamed at the end of the switch, and
 * what comes after it knows them by the new name (`named`). A rename is a change of the catalogue in the transaction in
 * which the new definition is served: a replica that still has the old one is refused by `platform.enter`, or meets a column
 * that is not there, and repeats its request, so nothing is ever written under the old name and no copy is needed.
 */
import { type Fault, fault } from "../domain/Fault.ts"
import { liveColumn } from "../domain/Names.ts"
import {
  type Comparison,
  copyTrigger,
  isOurs,
  notNullCheck,
  parts,
  successorIndex,
  successorOf,
  uniques
} from "./Comparison.ts"
import { type Facts, type Finding, none, renderFinding } from "./Facts.ts"
import { isLoosened, removedValues } from "./FieldChange.ts"
import { type Step, step } from "./Plan.ts"
import { canonicalJson } from "./SpecHash.ts"
import { qualified, quoteName, quoteText } from "./SqlText.ts"
import {
  commentOnConstraint,
  commentOnIndex,
  indexSql,
  tableComment,
  type WantedColumn,
  type WantedTable
} from "./WantedTable.ts"

export interface Diff {
  readonly steps: ReadonlyArray<Step>
  /** Why it cannot be done: the rows contradict it, or it is no change that is made. */
  readonly faults: ReadonlyArray<Fault>
  /** What stays different. */
  readonly notes: ReadonlyArray<string>
}

/** See the module. */
export const diff = (comparison: Comparison, facts: Facts): Diff => {
  const { access, actual, before, named, target, wanted } = comparison
  const { checks, indexes, isThere, keys, required, types, unproved } = parts(comparison)
  const { filled, rows } = facts
  const found = (key: string): Finding => facts.findings.get(key) ?? none
  const faults: Array<Fault> = []
  const notes: Array<string> = []
  const expand: Array<Step> = []
  const backfill: Array<Step> = []
  const build: Array<Step> = []
  const cut: Array<Step> = []
  const change: Array<Step> = []
  const add: Array<Step> = []
  const rename: Array<Step> = []
  const after: Array<Step> = []
  const alter = (sql: string, of: WantedTable = wanted) => `alter table ${of.table} ${sql}`
  const newName = new Map(
    wanted.columns.map((column, index) => [column.name, named.columns[index]?.name ?? column.name])
  )
  const latest = (field: string) => newName.get(field) ?? field
  const conflict = (at: ReadonlyArray<PropertyKey>, detail: string) =>
    faults.push(fault(["spec", ...at], "data_conflict", detail))
  const estimate = filled ? { estimate: rows } : {}
  const repair = { repairs: true }
  const copied = new Set([...types].flatMap(([name, one]) => (one._tag === "Copy" ? [name] : [])))
  // a column that a policy looks at can be neither dropped nor altered
  let freesColumns = false
  const validate = (does: string, name: string, repairs = false) =>
    after.push(
      step(
        "validate",
        `prove ${does}`,
        [alter(`validate constraint ${quoteName(name)}`, named)],
        "SHARE UPDATE EXCLUSIVE",
        {
          ...estimate,
          why: "of the rows that are there",
          repairs
        }
      )
    )

  // what an earlier plan left, which is nobody's
  const leftovers = [
    ...Object.keys(actual.triggers).map((name) => `drop trigger ${quoteName(name)} on ${wanted.table}`),
    ...Object.keys(actual.indexes)
      .filter(isOurs.index)
      .map((name) => `drop index ${qualified(wanted.schema, name)}`),
    ...Object.keys(actual.columns)
      .filter(isOurs.column)
      .map((name) => alter(`drop column ${quoteName(name)}`)),
    ...Object.keys(actual.constraints)
      .filter(isOurs.constraint)
      .map((name) => alter(`drop constraint ${quoteName(name)}`))
  ]
  if (leftovers.length > 0)
    (filled ? expand : cut).push(
      step(filled ? "expand" : "switch", "clear away what is left over", leftovers, "ACCESS EXCLUSIVE", repair)
    )

  // columns
  const addColumn = (column: WantedColumn) => {
    const { defaultSql, field, live, name, type } = column
    const withValue = field.required && filled
    if (withValue && defaultSql === undefined) {
      conflict(
        [...column.at, "required"],
        "records are there and would have no value: give the field a default, or let it be optional"
      )
      return
    }
    const quoted = quoteName(name)
    const make = withValue
      ? [alter(`add column ${quoted} ${type} not null default ${defaultSql}`)]
      : [
          alter(`add column ${quoted} ${type}${field.required ? " not null" : ""}`),
          // set apart, so that the rows that are there stay as they are
          ...(defaultSql === undefined ? [] : [alter(`alter column ${quoted} set default ${defaultSql}`)])
        ]
    const sql = [...make, ...(live === undefined ? [] : [alter(`add column ${live}`)])]
    const isIndexed = indexes.some((index) => index.fields.includes(name))
    const phase = filled && (isIndexed || withValue || live !== undefined) ? "expand" : "switch"
    ;(phase === "expand" ? expand : change).push(
      step(phase, `add field ${name}`, sql, "ACCESS EXCLUSIVE", {
        rewrites: filled && live !== undefined,
        ...(filled && live !== undefined ? { estimate: rows } : {}),
        ...(withValue ? { why: "records that are there get the default" } : {})
      })
    )
  }

  const copyColumn = (column: WantedColumn, narrows: boolean) => {
    freesColumns = true
    const { at, name, type } = column
    const misfits = found(`misfits ${name}`)
    const rounded = found(`rounded ${name}`)
    if (misfits.count > 0) {
      conflict([...at, "type"], `${type} does not fit ${renderFinding(misfits)}`)
      return
    }
    const successor = quoteName(successorOf(name))
    const trigger = quoteName(copyTrigger(name))
    const from = actual.columns[name]?.type ?? ""
    if (filled) {
      expand.push(
        step(
          "expand",
          `a second column for ${name}`,
          [
            alter(`add column ${successor} ${type}`),
            `create trigger ${trigger} before insert or update on ${wanted.table} for each row execute function platform.evolve_copy(${quoteText(name)}, ${quoteText(successorOf(name))})`
          ],
          "ACCESS EXCLUSIVE"
        )
      )
      backfill.push(
        step(
          "backfill",
          `copy ${name}`,
          [
            inBatches(
              wanted.table,
              `${successor} is null and ${quoteName(name)} is not null`,
              `${quoteName(name)} = t.${quoteName(name)}`
            )
          ],
          "ROW EXCLUSIVE",
          { batched: true, ...estimate }
        )
      )
    }
    change.push(
      step(
        "switch",
        `change the type of ${name} from ${from} to ${type}`,
        [
          ...(filled ? [`drop trigger ${trigger} on ${wanted.table}`] : [alter(`add column ${successor} ${type}`)]),
          alter(`drop column ${quoteName(name)}`),
          alter(`rename column ${successor} to ${quoteName(name)}`),
          ...(column.defaultSql === undefined
            ? []
            : [alter(`alter column ${quoteName(name)} set default ${column.defaultSql}`)]),
          ...(filled || !column.field.required ? [] : [alter(`alter column ${quoteName(name)} set not null`)])
        ],
        "ACCESS EXCLUSIVE",
        {
          needsApproval: true,
          losesData: rounded.count > 0,
          ...(rounded.count > 0
            ? { why: `rounds ${renderFinding(rounded)}` }
            : narrows
              ? { why: "values that were allowed no longer are" }
              : {})
        }
      )
    )
    if (filled && column.field.required) requireColumn(column, found(`nulls ${name}`))
  }

  /** Makes a column NOT NULL that has rows, after the switch. */
  const requireColumn = (column: WantedColumn, nulls: Finding) => {
    const { at, defaultSql, name } = column
    const now = latest(name)
    if (nulls.count > 0 && defaultSql === undefined) {
      conflict([...at, "required"], `no value in ${renderFinding(nulls)}: give the field a default, or fill them first`)
      return
    }
    const isNew = actual.columns[name]?.notNull === false
    const check = quoteName(notNullCheck(wanted.name, now))
    const quoted = quoteName(name)
    const fills = isNew && defaultSql !== undefined
    const open = `${notNullCheck(wanted.name, now)}_n`
    if (fills) {
      if (nulls.count > 0) {
        backfill.push(
          step(
            "backfill",
            `give ${name} its default`,
            [inBatches(wanted.table, `${quoted} is null`, `${quoted} = ${defaultSql}`)],
            "ROW EXCLUSIVE",
            { batched: true, estimate: nulls.count, why: `no value in ${renderFinding(nulls)}` }
          )
        )
      }
      // until the switch records may come without a value; by this index those few are found while everybody waits
      const column = copied.has(name) ? successorOf(name) : name
      build.push(
        step(
          "build",
          `an index of what has no ${name}`,
          [`create index concurrently ${quoteName(open)} on ${wanted.table} (id) where ${quoteName(column)} is null`],
          "SHARE UPDATE EXCLUSIVE",
          { concurrently: true, object: open, ...estimate }
        )
      )
    }
    add.push(
      step(
        "switch",
        `require ${now}`,
        [
          ...(fills
            ? [
                `lock table ${wanted.table} in access exclusive mode`,
                `update ${wanted.table} set ${quoted} = ${defaultSql} where ${quoted} is null`,
                `drop index ${qualified(wanted.schema, open)}`
              ]
            : []),
          alter(`add constraint ${check} check (${quoted} is not null) not valid`)
        ],
        "ACCESS EXCLUSIVE",
        isNew && !fills ? { needsApproval: true, why: "clients that leave it out are refused" } : {}
      )
    )
    after.push(
      step(
        "validate",
        `prove that ${now} has a value`,
        [alter(`validate constraint ${check}`, named)],
        "SHARE UPDATE EXCLUSIVE",
        estimate
      ),
      step(
        "validate",
        `${now} is NOT NULL`,
        [alter(`alter column ${quoteName(now)} set not null`, named), alter(`drop constraint ${check}`, named)],
        "ACCESS EXCLUSIVE"
      )
    )
  }

  for (const column of wanted.columns) {
    const { at, defaultSql, field, name } = column
    const is = actual.columns[name]
    const want = target.columns[name]
    if (want === undefined) continue
    if (is === undefined) {
      addColumn(column)
      continue
    }
    const quoted = quoteName(name)
    const typed = types.get(name)
    if (typed?._tag === "Refused") {
      faults.push(
        fault(
          ["spec", ...at, "type"],
          "type_change",
          `the type is ${before.get(name)?.type ?? is.type} (${is.type}) and cannot become ${field.type} (${want.type}): make another field`
        )
      )
      continue
    }
    if (typed?._tag === "Copy") {
      copyColumn(column, typed.narrows)
      continue
    }
    if (typed?._tag === "Widen") {
      freesColumns = true
      change.push(
        step(
          "switch",
          `widen ${name} to ${column.type}`,
          [alter(`alter column ${quoted} type ${column.type}`)],
          "ACCESS EXCLUSIVE"
        )
      )
    }
    const live = liveColumn(name)
    if (column.live !== undefined && actual.columns[live] === undefined) {
      const phase = filled ? "expand" : "switch"
      ;(filled ? expand : change).push(
        step(phase, `make ${name} a reference`, [alter(`add column ${column.live}`)], "ACCESS EXCLUSIVE", {
          rewrites: filled,
          ...estimate
        })
      )
    }
    if (is.default !== want.default) {
      change.push(
        step(
          "switch",
          `default of ${name}`,
          [alter(`alter column ${quoted} ${defaultSql === undefined ? "drop default" : `set default ${defaultSql}`}`)],
          "ACCESS EXCLUSIVE"
        )
      )
    }
    if (is.notNull && !want.notNull) {
      change.push(
        step("switch", `${name} is optional`, [alter(`alter column ${quoted} drop not null`)], "ACCESS EXCLUSIVE")
      )
    }
  }
  for (const column of required) {
    if (types.get(column.name)?._tag === "Copy" || types.get(column.name)?._tag === "Refused") continue
    if (filled) requireColumn(column, found(`nulls ${column.name}`))
    else {
      change.push(
        step(
          "switch",
          `require ${column.name}`,
          [alter(`alter column ${quoteName(column.name)} set not null`)],
          "ACCESS EXCLUSIVE"
        )
      )
    }
  }
  for (const [name, is] of Object.entries(actual.columns)) {
    if (target.columns[name] !== undefined || isOurs.column(name)) continue
    if (is.generated !== null && name.startsWith("_live_")) {
      change.push(step("switch", `drop ${name}`, [alter(`drop column ${quoteName(name)}`)], "ACCESS EXCLUSIVE"))
    }
  }
  for (const name of Object.keys(actual.columns)) {
    if (target.columns[name] !== undefined || isOurs.column(name) || name.startsWith("_live_")) continue
    freesColumns = true
    change.push(
      step("switch", `drop field ${name}`, [alter(`drop column ${quoteName(name)}`)], "ACCESS EXCLUSIVE", {
        losesData: true,
        needsApproval: true,
        ...(filled ? { why: `of about ${rows} record${rows === 1 ? "" : "s"}` } : {})
      })
    )
  }
  for (const name of Object.keys(target.columns)) {
    if (
      actual.columns[name] === undefined &&
      !wanted.columns.some((one) => one.name === name || liveColumn(one.name) === name)
    ) {
      faults.push(
        fault([], "not_ours", `the column ${name}, which every table has, is missing: it was dropped by hand`)
      )
    }
  }

  // constraints
  const wantedNames = new Set([...wanted.checks, ...wanted.foreignKeys].map((part) => part.name))
  const isSystem = (name: string) => target.constraints[name]?.kind === "p" || target.constraints[name]?.kind === "u"
  for (const [name, is] of Object.entries(actual.constraints)) {
    if (wantedNames.has(name) || isSystem(name) || isOurs.constraint(name)) continue
    cut.push(
      step(
        "switch",
        `remove ${is.comment ?? `the constraint ${name}`}`,
        [alter(`drop constraint ${quoteName(name)}`)],
        "ACCESS EXCLUSIVE"
      )
    )
  }
  const fieldOf = (name: string) => wanted.columns.find((column) => column.name === name)?.field
  for (const check of checks) {
    const { field: name, purpose } = check
    const field = fieldOf(name)
    if (field === undefined || types.get(name)?._tag === "Refused") continue
    const is = actual.constraints[check.name]
    const was = before.get(name)
    const quoted = quoteName(check.name)
    const drop = is === undefined || copied.has(name) ? [] : [alter(`drop constraint ${quoted}`)]
    const typed = types.has(name)
    // else the column's rows would be read for it while everybody waits
    if (typed && drop.length > 0) {
      cut.push(step("switch", `${check.comment} away for a moment`, drop, "ACCESS EXCLUSIVE"))
    }
    const isSame = is !== undefined && is.definition === target.constraints[check.name]?.definition
    const loosened = isLoosened(was, field, purpose)
    const removed = purpose === "enum" ? removedValues(was, field) : []
    const gained =
      purpose === "enum" && was?.enum !== undefined ? (field.enum ?? []).filter((one) => !was.enum?.includes(one)) : []
    const breaks = isThere(name) && !copied.has(name) ? found(`breaks ${check.name}`) : none
    if (copied.has(name) && found(`breaks ${check.name}`).count > 0) {
      conflict(check.at, `${check.comment} is not kept by ${renderFinding(found(`breaks ${check.name}`))}`)
      continue
    }
    const does =
      removed.length > 0
        ? `remove enum values ${removed.join(", ")} from ${name}`
        : gained.length > 0
          ? `add enum values to ${name}`
          : isSame || is === undefined
            ? check.comment
            : `${loosened ? "loosen" : "tighten"} ${check.comment}`
    const why = [
      ...(removed.length > 0 ? ["clients that send them are refused"] : []),
      ...(breaks.count > 0
        ? [`it is not kept by ${renderFinding(breaks)}; what is there stays, and cannot be changed without keeping it`]
        : [])
    ].join("; ")
    add.push(
      step(
        "switch",
        does,
        [
          ...(typed ? [] : drop),
          alter(`add constraint ${quoted} check (${check.condition}) not valid`),
          commentOnConstraint(wanted, check),
          ...(filled ? [] : [alter(`validate constraint ${quoted}`)])
        ],
        "ACCESS EXCLUSIVE",
        { needsApproval: removed.length > 0 || breaks.count > 0, ...(why === "" ? {} : { why }) }
      )
    )
    if (!filled) continue
    if (breaks.count > 0) notes.push(`${check.comment} is not kept by ${renderFinding(breaks)}`)
    else validate(check.comment, partName(named, wanted, check.name))
  }
  for (const key of keys) {
    const is = actual.constraints[key.name]
    const quoted = quoteName(key.name)
    const lost = isThere(key.field) ? found(`orphans ${key.name}`) : none
    if (lost.count > 0) {
      conflict(key.at, `there is no record of ${key.target} for ${renderFinding(lost)}`)
      continue
    }
    add.push(
      step(
        "switch",
        `foreign key ${key.field}`,
        [
          ...(is === undefined ? [] : [alter(`drop constraint ${quoted}`)]),
          key.sql,
          commentOnConstraint(wanted, key),
          ...(filled ? [] : [alter(`validate constraint ${quoted}`)])
        ],
        "SHARE ROW EXCLUSIVE",
        is === undefined || before.get(key.field)?.ref === undefined
          ? {}
          : { needsApproval: true, why: "it refers to other records" }
      )
    )
    if (filled) validate(`foreign key ${key.field}`, partName(named, wanted, key.name))
  }
  for (const part of unproved) {
    const lost = "purpose" in part ? found(`breaks ${part.name}`) : found(`orphans ${part.name}`)
    if (lost.count > 0) notes.push(`${part.comment} is not kept by ${renderFinding(lost)}`)
    else validate(part.comment, partName(named, wanted, part.name), true)
  }

  // indexes
  for (const [name, is] of Object.entries(actual.indexes)) {
    if (target.indexes[name] !== undefined || isOurs.index(name)) continue
    cut.push(
      step(
        "switch",
        `remove ${is.comment ?? `the index ${name}`}`,
        [`drop index ${qualified(wanted.schema, name)}`],
        "ACCESS EXCLUSIVE"
      )
    )
  }
  for (const { at, name } of uniques(comparison)) {
    const doubles = found(`doubles ${name}`)
    if (doubles.count > 0) conflict(at, `not unique: ${renderFinding(doubles, "value")}`)
  }
  const swaps: Array<string> = []
  for (const index of indexes) {
    const { fields, name, unique } = index
    if (fields.some((field) => types.get(field)?._tag === "Refused")) continue
    const does = `${unique ? "unique" : "index"} ${fields.join(", ")}`
    const swap = fields.some((field) => copied.has(field))
    const is = actual.indexes[name]
    const isOther = is?.valid === true && is.definition !== target.indexes[name]?.definition
    if (filled) {
      const made = swap ? successorIndex(name) : name
      if (isOther && !swap) {
        expand.push(
          step(
            "expand",
            `drop another index of the name ${name}`,
            [`drop index ${qualified(wanted.schema, name)}`],
            "ACCESS EXCLUSIVE",
            { repairs: !unique }
          )
        )
      }
      build.push(
        step(
          "build",
          does,
          [
            indexSql(wanted, index, {
              name: made,
              concurrently: true,
              columnOf: (field) => (copied.has(field) ? successorOf(field) : field)
            })
          ],
          "SHARE UPDATE EXCLUSIVE",
          { concurrently: true, object: made, repairs: !unique, ...estimate }
        )
      )
      if (swap) swaps.push(`alter index ${qualified(wanted.schema, made)} rename to ${quoteName(name)}`)
      add.push(step("switch", `comment ${does}`, [commentOnIndex(wanted, index)], "none", { repairs: !unique }))
    } else {
      const drop = is !== undefined && !swap ? [`drop index ${qualified(wanted.schema, name)}`] : []
      add.push(
        step("switch", does, [...drop, indexSql(wanted, index), commentOnIndex(wanted, index)], "ACCESS EXCLUSIVE", {
          repairs: !unique
        })
      )
    }
  }
  if (swaps.length > 0) change.push(step("switch", "the new columns' indexes", swaps, "ACCESS EXCLUSIVE"))
  // an index that has to do with a renamed or copied field is commented anew with it
  for (const index of wanted.indexes) {
    const is = actual.indexes[index.name]
    if (indexes.includes(index) || is === undefined || is.comment === index.comment) continue
    add.push(step("switch", `comment ${index.comment}`, [commentOnIndex(wanted, index)], "none", repair))
  }
  for (const part of [...wanted.checks, ...wanted.foreignKeys]) {
    const is = actual.constraints[part.name]
    if (
      is === undefined ||
      is.comment === part.comment ||
      checks.some((one) => one.name === part.name) ||
      keys.some((one) => one.name === part.name)
    )
      continue
    add.push(step("switch", `comment ${part.comment}`, [commentOnConstraint(wanted, part)], "none", repair))
  }

  // names
  wanted.columns.forEach((column, position) => {
    const now = named.columns[position]
    if (now === undefined || now.name === column.name) return
    const live =
      column.live === undefined
        ? []
        : [alter(`rename column ${quoteName(liveColumn(column.name))} to ${quoteName(liveColumn(now.name))}`)]
    rename.push(
      step(
        "switch",
        `rename ${column.name} to ${now.name}`,
        [alter(`rename column ${quoteName(column.name)} to ${quoteName(now.name)}`), ...live],
        "ACCESS EXCLUSIVE",
        { needsApproval: true, why: "clients that use the old name are refused" }
      )
    )
  })
  const renamedParts = [
    ...pairs(wanted.checks, named.checks).map(([was, now]) => [
      alter(`rename constraint ${quoteName(was.name)} to ${quoteName(now.name)}`),
      commentOnConstraint(named, now)
    ]),
    ...pairs(wanted.foreignKeys, named.foreignKeys)
      .filter(([was]) => comparison.possible.has(was.name))
      .map(([was, now]) => [
        alter(`rename constraint ${quoteName(was.name)} to ${quoteName(now.name)}`),
        commentOnConstraint(named, now)
      ]),
    ...pairs(wanted.indexes, named.indexes).map(([was, now]) => [
      `alter index ${qualified(wanted.schema, was.name)} rename to ${quoteName(now.name)}`,
      commentOnIndex(named, now)
    ])
  ]
  if (renamedParts.length > 0)
    rename.push(step("switch", "names of constraints and indexes", renamedParts.flat(), "ACCESS EXCLUSIVE"))

  // access
  const dropsPolicies = freesColumns || rename.length > 0
  const shut = [
    ...Object.keys(actual.policies)
      .filter((name) => target.policies[name] === undefined || dropsPolicies)
      .filter((name) => name !== "velocity_ddl" || target.policies[name] === undefined)
      .map((name) => `drop policy ${quoteName(name)} on ${wanted.table}`),
    ...actual.grants.filter((grant) => !target.grants.includes(grant)).map((grant) => revokeSql(grant, wanted.table)),
    ...(actual.view?.grants ?? [])
      .filter((grant) => target.view?.grants.includes(grant) === false)
      .map((grant) => revokeSql(grant, wanted.view))
  ]
  const same = (key: "enabled" | "forced" | "policies" | "grants" | "view") =>
    canonicalJson(actual[key]) === canonicalJson(target[key])
  const opens = dropsPolicies || !(["enabled", "forced", "policies", "grants", "view"] as const).every(same)
  // a view whose columns are others cannot be replaced
  const remake =
    actual.view !== null && actual.view.definition !== target.view?.definition ? [`drop view ${wanted.view}`] : []
  const first =
    shut.length === 0
      ? []
      : [
          step(
            "switch",
            dropsPolicies ? "policies away" : "what is not asked for away",
            shut,
            "ACCESS EXCLUSIVE",
            repair
          )
        ]
  const last = opens ? [step("switch", "access", [...remake, ...access], "ACCESS EXCLUSIVE", repair)] : []
  const comment =
    actual.comment === tableComment(wanted.path)
      ? []
      : [
          step(
            "switch",
            "comment on the table",
            [`comment on table ${wanted.table} is ${quoteText(tableComment(wanted.path))}`],
            "none",
            repair
          )
        ]
  return {
    steps: [
      ...expand,
      ...backfill,
      ...build,
      ...first,
      ...cut,
      ...change,
      ...add,
      ...rename,
      ...last,
      ...comment,
      ...after
    ],
    faults,
    notes
  }
}

/** One batch: the next rows by id that still need it, and how far it came. */
const inBatches = (table: string, condition: string, set: string): string =>
  `with batch as (select id from ${table} where id > $1 and ${condition} order by id limit $2 for no key update),
  done as (update ${table} t set ${set} from batch b where t.id = b.id returning t.id)
select count(*)::text as rows, (array_agg(id order by id desc))[1]::text as last from done`

/** The parts that get another name, with it. */
const pairs = <A extends { readonly name: string }>(
  was: ReadonlyArray<A>,
  now: ReadonlyArray<A>
): ReadonlyArray<readonly [A, A]> =>
  was.flatMap((one, index) => {
    const other = now[index]
    return other === undefined || other.name === one.name ? [] : [[one, other] as const]
  })

/** What a part is called in the end. */
const partName = (named: WantedTable, wanted: WantedTable, name: string): string => {
  for (const kind of ["checks", "foreignKeys"] as const) {
    const index = wanted[kind].findIndex((one) => one.name === name)
    if (index >= 0) return named[kind][index]?.name ?? name
  }
  return name
}

/** Takes back a grant as the catalogue names it: `role privilege`, `role privilege (column)`. */
const revokeSql = (grant: string, relation: string): string => {
  const [, role = "", privilege = "", column] = /^(.*) ([A-Z]+)(?: \((.*)\))?$/u.exec(grant) ?? []
  return `revoke ${privilege}${column === undefined ? "" : ` (${quoteName(column)})`} on ${relation} from ${role === "PUBLIC" ? "public" : quoteName(role)} cascade`
}
