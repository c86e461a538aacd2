/**
 * The sealer's role, within an operator's transaction: the only way to the tree's writer and to its checkpoints' (audit.md).
 *
 * The transaction must hold the operator's term before it enters, so that a leader that was stopped and goes on seals
 * nothing. What the role may write is decided by the functions of migration 0007, not here.
 */
import * as Effect from "effect/Effect"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { statement } from "./Statement.ts"
import type { Tx } from "./Transaction.ts"

/** The login names the installation's prefix, and both roles have it. */
const enter = statement("select set_config('role', regexp_replace(session_user, 'operator$', 'sealer'), true)")
const leave = statement("select set_config('role', 'none', true)")

/**
 * Runs `f` with the transaction's role set to `velocity_sealer`, and back to the operator afterwards, also when `f`
 * fails. After a database error the transaction is aborted, and its end resets the role.
 */
export const asSealer = <A, E, R>(
  tx: Tx,
  f: (tx: Tx) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | DatabaseFailure, R> =>
  Effect.acquireUseRelease(
    tx.query(enter),
    () => f(tx),
    () => Effect.ignore(tx.query(leave))
  )
