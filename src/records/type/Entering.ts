/** How a request enters its domain: the Postgres role of the operation, and what the transaction is told of the caller. */
import type { Caller } from "../../domain/Identity.ts"
import { rolesOf, tierOf } from "../../domain/Names.ts"
import type { Operation } from "../../domain/Operation.ts"
import type { ServedDefinition } from "../../domain/ServedDefinition.ts"
import type { Enter } from "../../postgres/TenantTx.ts"

/**
 * Record roles never are Postgres roles; they travel in the context, which `platform.ctx()` reads (fine print 34). What a
 * token says got in only as text that jsonb can hold (`access/JwtStrategy`).
 */
export const enterFor = (type: { readonly def: ServedDefinition }, caller: Caller, operation: Operation): Enter => ({
  role: rolesOf(type.def.pgSchema)[tierOf(operation)],
  ctx: JSON.stringify({
    op: operation,
    def: type.def.id,
    actor: caller.identity.actor,
    roles: caller.roles,
    attributes: caller.identity.attributes,
    request_id: caller.requestId,
    reason: caller.reason,
    ticket: caller.ticket
  })
})

/**
 * The gate of a tenant's statement as an SQL condition: true, or the statement fails because another generation of the
 * definition is in force (VL010) or no role of the caller grants the operation (VL011). A subquery without outer
 * references is an InitPlan: one look-up a statement, however many rows.
 */
export const gateSql = (def: ServedDefinition, operation: Operation): string =>
  `(select platform.enter(${def.id}, ${def.generation}, '${operation}'))`
