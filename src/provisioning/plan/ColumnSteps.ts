/** The steps that a table's columns need: added, dropped, required, of another default or type. */
import { fault } from "../../domain/Fault.ts"
import { liveColumn } from "../../domain/Names.ts"
import { qualified, quoteName, quoteText } from "../table/SqlText.ts"
import type { WantedColumn } from "../table/WantedTable.ts"
import { backfillSql } from "./Backfill.ts"
import { copyTrigger, isOurs, notNullCheck, successorOf, successorValue, unfitIndex } from "./Comparison.ts"
import { type Draft, repair } from "./Draft.ts"
import { type Finding, none, renderFinding } from "./Facts.ts"
import { leftovers } from "./Leftovers.ts"
import { type StepFacts, step } from "./Plan.ts"
import { shut, unless } from "./Premise.ts"

/** See the module. */
export const columnSteps = (draft: Draft): void => {
  const { actual, alter, before, conflict, copied, estimate, faults, fields, filled, found } = draft
  const { indexes, named, required, rows, steps, target, types, wanted } = draft
  const newName = new Map(
    wanted.columns.map((column, index) => [column.name, named.columns[index]?.name ?? column.name])
  )
  const latest = (field: string) => newName.get(field) ?? field

  // what an earlier plan left, which is nobody's
  const nobodys = [
    ...Object.keys(actual.triggers)
      .filter((name) => !isOurs.trigger(name))
      .map((name) => `drop trigger ${quoteName(name)} on ${wanted.table}`),
    ...leftovers(actual, wanted.schema, wanted.name),
    ...Object.keys(actual.constraints)
      .filter(isOurs.constraint)
      .map((name) => alter(`drop constraint ${quoteName(name)}`))
  ]
  if (nobodys.length > 0)
    (filled ? steps.expand : steps.cut).push(
      step(filled ? "expand" : "switch", "clear away what is left over", nobodys, "ACCESS EXCLUSIVE", repair)
    )

  // columns
  const addColumn = (column: WantedColumn) => {
    const { defaultSql, field, live, name, type } = column
    const withValue = field.required && filled
    const computed = withValue && field.backfill !== undefined
    if (withValue && defaultSql === undefined && !computed) {
      conflict(
        [...column.at, "required"],
        "records are there and would have no value: give the field a default or a backfill, or let it be optional"
      )
      return
    }
    const quoted = quoteName(name)
    const make =
      withValue && !computed
        ? [alter(`add column ${quoted} ${type} not null default ${defaultSql}`)]
        : [
            alter(`add column ${quoted} ${type}${field.required && !computed ? " not null" : ""}`),
            // set apart, so that the rows that are there stay as they are
            ...(defaultSql === undefined ? [] : [alter(`alter column ${quoted} set default ${defaultSql}`)])
          ]
    const sql = [...make, ...(live === undefined ? [] : [alter(`add column ${live}`)])]
    const isIndexed = indexes.some((index) => index.fields.includes(name))
    const phase = filled && (isIndexed || withValue || live !== undefined) ? "expand" : "switch"
    ;(phase === "expand" ? steps.expand : steps.change).push(
      step(phase, `add field ${name}`, sql, "ACCESS EXCLUSIVE", {
        ...(computed
          ? { why: "records that are there get what its backfill says" }
          : withValue
            ? { why: "records that are there get the default" }
            : {}),
        ...(filled && live !== undefined ? rewriting(rows) : {})
      })
    )
    if (computed) requireColumn(column, none)
  }

  /** What a field's `backfill` gives to the records that have no value: the statements, and the field. */
  const computing = (column: WantedColumn) => ({
    sql: backfillSql(
      wanted.table,
      { column: column.name, type: column.type },
      wanted.columns.flatMap((one) => {
        const name = fields.get(latest(one.name))
        // the version that computes it knows nothing of other versions' fields
        if (name === undefined || actual.columns[one.name] === undefined) return []
        return [{ column: one.name, field: { ...one.field, name } }]
      })
    ),
    computes: fields.get(latest(column.name)) ?? latest(column.name)
  })

  const copyColumn = (column: WantedColumn, narrows: boolean) => {
    draft.freesColumns = true
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
    const rounds = rounded.count > 0
    const value = successorValue(name, type, rounds)
    const unfit = unfitIndex(wanted.name, name)
    const isUnfit = `${successor} is null and ${quoteName(name)} is not null`
    if (filled) {
      const batches = inBatches(
        wanted.table,
        `${successor} is null and ${value} is not null`,
        `${successor} = ${value}`
      )
      steps.expand.push(
        step(
          "expand",
          `a second column for ${name}`,
          [
            alter(`add column ${successor} ${type}`),
            `create trigger ${trigger} before insert or update on ${wanted.table} for each row execute function platform.evolve_copy(${[name, successorOf(name), type].map(quoteText).join(", ")})`
          ],
          "ACCESS EXCLUSIVE"
        )
      )
      steps.backfill.push(step("backfill", `copy ${name}`, [batches], "ROW EXCLUSIVE", { batched: true, ...estimate }))
      // by this index the switch finds, while everybody waits, what was written since and does not fit
      steps.build.push(
        step(
          "build",
          `an index of what of ${name} does not fit`,
          [`create index concurrently ${quoteName(unfit)} on ${wanted.table} (id) where ${isUnfit}`],
          "SHARE UPDATE EXCLUSIVE",
          { concurrently: true, object: unfit, ...estimate }
        )
      )
      // what is served admits what is to be rounded: the trigger leaves it to us
      if (rounds) {
        steps.catchUp.push(
          step("backfill", `copy ${name}, in what came meanwhile`, [batches], "ROW EXCLUSIVE", { batched: true })
        )
      }
    }
    const fitting = [
      shut(wanted.table),
      ...(rounds ? [`update ${wanted.table} set ${successor} = ${value} where ${isUnfit}`] : []),
      unless(
        `select from ${wanted.table} where ${isUnfit}`,
        `${name} was given values meanwhile that ${type} does not hold${rounds ? "" : " as they are"}`
      ),
      `drop index ${qualified(wanted.schema, unfit)}`,
      `drop trigger ${trigger} on ${wanted.table}`
    ]
    steps.change.push(
      step(
        "switch",
        `change the type of ${name} from ${from} to ${type}`,
        [
          ...(filled ? fitting : [alter(`add column ${successor} ${type}`)]),
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
          losesData: rounds,
          ...(rounds
            ? { why: `rounds ${renderFinding(rounded)}, and what is written until then` }
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
    const isAbsent = actual.columns[name] === undefined
    const computed = column.field.backfill !== undefined && !copied.has(name)
    if (nulls.count > 0 && defaultSql === undefined && !computed) {
      const ways = "give the field a default or a backfill, or fill them first"
      conflict([...at, "required"], `no value in ${renderFinding(nulls)}: ${ways}`)
      return
    }
    const isNew = isAbsent || actual.columns[name]?.notNull === false
    const narrows = isNew && before.get(name)?.required !== true && (!isAbsent || defaultSql === undefined)
    const check = quoteName(notNullCheck(wanted.name, now))
    const quoted = quoteName(name)
    const fills = isNew && (defaultSql !== undefined || computed)
    const does = computed ? `give ${now} what its backfill says` : `give ${name} its default`
    const open = `${notNullCheck(wanted.name, now)}_n`
    // what was served keeps its column as it is, and what takes its place gets the value
    const into = quoteName(copied.has(name) ? successorOf(name) : name)
    const filling = (): StepFacts & { readonly sql: string } => {
      if (!computed) {
        const lacks = copied.has(name) ? `${into} is null and ${quoted} is null` : `${into} is null`
        return { sql: inBatches(wanted.table, lacks, `${into} = ${defaultSql}`) }
      }
      const { computes, sql } = computing(column)
      return { sql: sql.join(";\n"), computes }
    }
    if (fills) {
      const { sql, ...facts } = filling()
      const batches = (phrase: string, more: StepFacts) =>
        step("backfill", phrase, [sql], "ROW EXCLUSIVE", { batched: true, ...facts, ...more })
      if (nulls.count > 0 || isAbsent) {
        const why = `no value in ${renderFinding(nulls)}`
        steps.backfill.push(batches(does, isAbsent ? estimate : { estimate: nulls.count, why }))
      }
      // until the switch records may come without a value; by this index those few are found while everybody waits
      steps.build.push(
        step(
          "build",
          `an index of what has no ${name}`,
          [`create index concurrently ${quoteName(open)} on ${wanted.table} (id) where ${into} is null`],
          "SHARE UPDATE EXCLUSIVE",
          { concurrently: true, object: open, ...estimate }
        )
      )
      steps.catchUp.push(batches(`${does}, in what came meanwhile`, {}))
      if (computed) {
        steps.add.push(
          step("switch", `${now} is written by nobody`, [shut(wanted.table)], "ACCESS EXCLUSIVE"),
          step("switch", `${does}, in the last of them`, [sql], "ACCESS EXCLUSIVE", facts)
        )
      }
    }
    steps.add.push(
      step(
        "switch",
        `require ${now}`,
        [
          ...(fills && !computed
            ? [shut(wanted.table), `update ${wanted.table} set ${quoted} = ${defaultSql} where ${quoted} is null`]
            : []),
          ...(fills ? [`drop index ${qualified(wanted.schema, open)}`] : []),
          alter(`add constraint ${check} check (${quoted} is not null) not valid`)
        ],
        "ACCESS EXCLUSIVE",
        narrows
          ? {
              needsApproval: true,
              why: `clients that ${defaultSql === undefined ? "leave it out" : "send null"} are refused`
            }
          : {}
      )
    )
    steps.validate.push(
      step(
        "validate",
        `prove that ${now} has a value`,
        [alter(`validate constraint ${check}`, named)],
        "SHARE UPDATE EXCLUSIVE",
        { ...estimate, concurrently: true, object: notNullCheck(wanted.name, now) }
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
      draft.freesColumns = true
      steps.change.push(
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
      ;(filled ? steps.expand : steps.change).push(
        step(
          phase,
          `make ${name} a reference`,
          [alter(`add column ${column.live}`)],
          "ACCESS EXCLUSIVE",
          filled ? rewriting(rows) : {}
        )
      )
    }
    if (is.default !== want.default) {
      steps.change.push(
        step(
          "switch",
          `default of ${name}`,
          [alter(`alter column ${quoted} ${defaultSql === undefined ? "drop default" : `set default ${defaultSql}`}`)],
          "ACCESS EXCLUSIVE"
        )
      )
    }
    if (is.notNull && !want.notNull) {
      steps.change.push(
        step("switch", `${name} is optional`, [alter(`alter column ${quoted} drop not null`)], "ACCESS EXCLUSIVE")
      )
    }
  }
  for (const column of required) {
    if (types.get(column.name)?._tag === "Copy" || types.get(column.name)?._tag === "Refused") continue
    if (filled) requireColumn(column, found(`nulls ${column.name}`))
    else {
      steps.change.push(
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
      steps.change.push(step("switch", `drop ${name}`, [alter(`drop column ${quoteName(name)}`)], "ACCESS EXCLUSIVE"))
    }
  }
  for (const name of Object.keys(actual.columns)) {
    if (target.columns[name] !== undefined || isOurs.column(name) || name.startsWith("_live_")) continue
    draft.freesColumns = true
    steps.change.push(
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
}

/** A generated column is written into every record at once, for which nobody can be made to wait unasked. */
const rewriting = (rows: number): StepFacts => ({
  rewrites: true,
  needsApproval: true,
  estimate: rows,
  why: `about ${rows} record${rows === 1 ? " is" : "s are"} written anew while everybody waits`
})

/** One batch: the next rows by id that still need it, and how far it came. */
const inBatches = (table: string, condition: string, set: string): string =>
  `with batch as (select id from ${table} where id > $1 and ${condition} order by id limit $2 for no key update),
  done as (update ${table} t set ${set} from batch b where t.id = b.id returning t.id)
select count(*)::text as rows, (array_agg(id order by id desc))[1]::text as last from done`
