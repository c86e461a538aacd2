/** What a rule of the isolation check is, and the names that several of them say. */

/** One thing that must be so. */
export interface Rule {
  /** What the rule is for. */
  readonly why: string
  readonly sql: string
}

/** Our roles that belong to no domain. */
export const platformRoles =
  "'velocity_owner', 'velocity_tenant', 'velocity_history', 'velocity_gateway', 'velocity_auditor', 'velocity_privacy', 'velocity_sealer', 'velocity_api', 'velocity_operator'"
