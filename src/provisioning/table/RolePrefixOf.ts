/** The prefix of this installation's roles, which is in the name of the operator's login (ADR-020). */
import { Effect } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { prefixOfLogin } from "../../postgres/RolePrefix.ts"
import { statement } from "../../postgres/Statement.ts"

/** See the module. */
export const rolePrefixOf = (tx: Tx): Effect.Effect<string, DatabaseFailure> =>
  Effect.map(tx.query(statement("select session_user::text as login")), ({ rows: [row] }) =>
    prefixOfLogin(String(row?.login))
  )
