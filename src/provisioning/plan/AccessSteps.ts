/** The steps that make grants, policies, view and comment what they should be; last, because columns must be free of policies. */

import { canonicalJson } from "../table/SpecHash.ts"
import { qualified, quoteName, quoteText } from "../table/SqlText.ts"
import { tableComment } from "../table/WantedTable.ts"
import { type Draft, repair } from "./Draft.ts"
import { step } from "./Plan.ts"

const compared = ["enabled", "forced", "policies", "grants", "view", "faces"] as const

/** See the module. */
export const accessSteps = (draft: Draft): void => {
  const { access, actual, steps, target, wanted } = draft
  const dropsPolicies = draft.freesColumns || steps.rename.length > 0
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
  const same = (key: (typeof compared)[number]) => canonicalJson(actual[key]) === canonicalJson(target[key])
  const opens = dropsPolicies || !compared.every(same)
  // a view holds the columns it shows, and is made anew in the same transaction
  if (opens) shut.push(...Object.keys(actual.faces ?? {}).map((name) => `drop view ${qualified(wanted.schema, name)}`))
  // a view whose columns are others cannot be replaced
  const remake =
    actual.view !== null && actual.view.definition !== target.view?.definition ? [`drop view ${wanted.view}`] : []
  if (shut.length > 0) {
    const does = dropsPolicies ? "policies away" : "what is not asked for away"
    steps.shut.push(step("switch", does, shut, "ACCESS EXCLUSIVE", repair))
  }
  if (opens) steps.open.push(step("switch", "access", [...remake, ...access], "ACCESS EXCLUSIVE", repair))
  const comment = tableComment(wanted.path)
  if (actual.comment !== comment) {
    const sql = `comment on table ${wanted.table} is ${quoteText(comment)}`
    steps.open.push(step("switch", "comment on the table", [sql], "none", repair))
  }
}

/** Takes back a grant as the catalogue names it: `role privilege`, `role privilege (column)`. */
const revokeSql = (grant: string, relation: string): string => {
  const [, role = "", privilege = "", column] = /^(.*) ([A-Z]+)(?: \((.*)\))?$/u.exec(grant) ?? []
  return `revoke ${privilege}${column === undefined ? "" : ` (${quoteName(column)})`} on ${relation} from ${role === "PUBLIC" ? "public" : quoteName(role)} cascade`
}
