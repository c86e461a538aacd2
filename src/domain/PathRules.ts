/** What a resource's path can be told to be wrong by itself, in CEL; `Names` says the same and decides. */
import type { CelRule } from "./CelRule.ts"
import { reservedOrgs, schemaMaxLength } from "./Names.ts"

/** Of a spec with `org`. */
export const orgRules: ReadonlyArray<CelRule> = [
  {
    rule: `!(self.org in [${[...reservedOrgs].map((name) => `'${name}'`).join(", ")}] || self.org.startsWith('pg-'))`,
    message: "this organisation name is reserved (pg, platform, velocity, pg-…)",
    fieldPath: ".org"
  }
]

/** Of a spec with `org`, `app` and `domain`. The names of tables fit by the bounds of their parts. */
export const domainRules: ReadonlyArray<CelRule> = [
  ...orgRules,
  {
    rule: `size(self.org) + size(self.app) + size(self.domain) <= ${schemaMaxLength - 2}`,
    message: `org, app and domain together may have ${schemaMaxLength - 2} characters`,
    fieldPath: ".domain"
  }
]
