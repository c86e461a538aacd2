/**
 * The audit log's one entrance: the call of `platform.audit_insert`, which is the only writer there is (audit.md).
 *
 * The entry belongs to the transaction of the act and comes last in it, just before COMMIT, because it holds its lane's
 * lock until then. Which role may write what is decided by the function, not here.
 */
import * as Effect from "effect/Effect"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import type { Statement } from "./Statement.ts"
import type { Tx } from "./Transaction.ts"

/** What an entry says. `payload` and `failModes` are JSON values and hold no contents of records. */
export interface Entry {
  /** `{org}/{app}/{domain}`, or `platform`. */
  readonly chain: string
  /** `{strategy}/{subject}`. */
  readonly actor: string
  /** create, update, delete, restore, read, login, operator.… */
  readonly action: string
  readonly outcome: "ok" | "denied" | "failed" | "dry_run" | "unknown"
  readonly schemaPath?: string | undefined
  readonly entityId?: string | undefined
  readonly payload?: unknown
  readonly failModes?: unknown
  readonly requestId?: string | undefined
  readonly reason?: string | undefined
  readonly ticketRef?: string | undefined
}

const sql = "select platform.audit_insert($1, $2, $3, $4, $5, $6::uuid, $7::jsonb, $8::jsonb, $9, $10, $11)::text as id"

const json = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value))

/** The entry as a statement, for a bundle. Answers one row with the entry's `id`. */
export const statement = (entry: Entry): Statement => ({
  sql,
  params: [
    entry.chain,
    entry.actor,
    entry.action,
    entry.outcome,
    entry.schemaPath ?? null,
    entry.entityId ?? null,
    json(entry.payload),
    json(entry.failModes),
    entry.requestId ?? null,
    entry.reason ?? null,
    entry.ticketRef ?? null
  ]
})

/**
 * Writes the entry in an open transaction and answers its id. Fails as statements do: with `Denied` when the role in
 * force may not say this, with `Platform` VL002 to VL004 when the session or the chain is not fit.
 */
export const insert = (tx: Tx, entry: Entry): Effect.Effect<string, DatabaseFailure> =>
  Effect.map(tx.query(statement(entry)), (result) => String(result.rows[0]?.id))
