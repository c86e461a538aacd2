/** What a legal hold on a domain keeps: nothing that loses records is done under one. */
import { Effect } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { type ProvisionRefused, refused } from "./ProvisionRefused.ts"

/**
 * Fails with `LegalHold` where a hold is on the domain, and keeps any from being placed until the transaction ends: its row
 * refers to the domain's.
 */
export const refuseHeld = Effect.fnUntraced(function* (
  tx: Tx,
  chain: string
): Effect.fn.Return<void, DatabaseFailure | ProvisionRefused> {
  yield* tx.query(statement("select from platform.domains where chain = $1 for update", [chain]))
  const { rows } = yield* tx.query(
    statement(
      "select reason from platform.legal_holds where chain = $1 and lifted_at is null order by placed_at limit 10",
      [chain]
    )
  )
  if (rows.length > 0) {
    return yield* refused(
      "LegalHold",
      `${chain} is under a legal hold: ${rows.map((one) => String(one.reason)).join("; ")}`
    )
  }
})
