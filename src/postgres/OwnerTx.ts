/**
 * A domain's owner role, within an operator's transaction: the only way to a domain's DDL, used by `provisioning` alone.
 *
 * The operator may enter `{schema}_owner` of the domains that it made; the API's login may not.
 */
import * as Effect from "effect/Effect"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { statement } from "./Statement.ts"
import type { Tx } from "./Transaction.ts"

/**
 * Runs `f` with the transaction's role set to the owner of a schema, and back to the operator afterwards, also when `f`
 * fails. Fails with `Denied` where the operator is no member of that role. After a database error the transaction is
 * aborted, and its end resets the role.
 */
export const asOwner = <A, E, R>(
  tx: Tx,
  schema: string,
  f: (tx: Tx) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | DatabaseFailure, R> =>
  Effect.acquireUseRelease(
    tx.query(statement("select set_config('role', $1, true)", [`${schema}_owner`])),
    () => f(tx),
    () => Effect.ignore(tx.query(statement("select set_config('role', 'none', true)")))
  )
