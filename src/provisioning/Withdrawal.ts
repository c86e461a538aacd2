/**
 * The end of serving a definition whose resource was deleted (fine print 27, `Retain`): it is served no longer, every
 * replica has said so, and then rights are taken away.
 */
import { Effect } from "effect"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import * as Catalogue from "./Catalogue.ts"
import { lockDomain, setLockTimeout } from "./Names.ts"
import { actorOf, foreignOrigin, type Origin } from "./Origin.ts"
import * as PlanStore from "./PlanStore.ts"
import { rowSql } from "./Provision.ts"
import { type ProvisionRefused, refused } from "./ProvisionRefused.ts"
import { servingOf } from "./ServingState.ts"
import { inOneBlock } from "./SqlText.ts"
import { withdrawSql } from "./WantedTable.ts"

/** A definition that is to be served no longer. */
export interface Withdrawal {
  readonly path: string
  readonly origin: Origin
  /** Paths that go at the same time, and so need not be waited for. */
  readonly leaving: ReadonlySet<string>
}

/** How far a withdrawal has come. */
export type Withdrawn =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Done" }
  /** Replicas of the API have not said yet that they serve it no longer. */
  | { readonly _tag: "Waits"; readonly for: ReadonlyArray<string> }

const nothing: Withdrawn = { _tag: "Nothing" }

/** Takes from domain roles every right on a table that nobody serves any more. */
const revoke = Effect.fnUntraced(function* (tx: Tx, { origin, path }: Withdrawal, schema: string, name: string) {
  yield* tx.query(setLockTimeout)
  const actual = yield* Catalogue.read(tx, schema, name)
  if (actual !== undefined) {
    yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock(withdrawSql(schema, name))))
  }
  yield* tx.query(
    statement("update platform.schema_defs set state = 'Withdrawn', updated_at = now() where path = $1", [path])
  )
  yield* AuditChain.insert(tx, {
    chain: chainOfPath(path),
    actor: actorOf(origin),
    action: "operator.schema.withdraw",
    outcome: "ok",
    schemaPath: path,
    payload: { kept: `${schema}.${name}` }
  })
})

const chainOfPath = (path: string): string => path.split("/").slice(0, 3).join("/")

/**
 * Ends serving a definition whose resource was deleted (`Retain`): answers become 410 `gone`; when every replica has
 * acknowledged that, which may take another call, domain roles lose every right on the table. Its rows, its path and its
 * name stay. Fails with `Referenced` while a definition that stays refers to it.
 */
export const withdraw = Effect.fn("Provision.withdraw")(function* (
  tx: Tx,
  withdrawal: Withdrawal
): Effect.fn.Return<Withdrawn, DatabaseFailure | ProvisionRefused> {
  const { leaving, origin, path } = withdrawal
  const chain = chainOfPath(path)
  yield* lockDomain(tx, chain)
  const [row] = (yield* tx.query(statement(rowSql, [path]))).rows
  if (row === undefined || (row.serving !== true && row.state !== "Withdrawing")) return nothing
  // the row of another resource, or of another source, is not ours to end
  if (foreignOrigin(row, origin, path) !== undefined) return nothing
  if (row.serving === true) {
    const { rows: referring } = yield* tx.query(
      statement(
        `select s.path from platform.schema_defs s, jsonb_array_elements(s.serving -> 'fields') as f
         where s.chain = $1 and s.path <> $2 and s.serving is not null
           and concat_ws('/', s.chain, f -> 'ref' ->> 'object', f -> 'ref' ->> 'version') = $2 and f ? 'ref'
         group by s.path order by s.path limit 10`,
        [chain, path]
      )
    )
    const staying = referring.map((one) => String(one.path)).filter((one) => !leaving.has(one))
    if (staying.length > 0) return yield* refused("Referenced", `${staying.join(", ")} refer to it`)
    yield* tx.query(
      statement(
        `update platform.schema_defs set wanted = null, wanted_hash = null, serving = null, serving_hash = null, fingerprint = null, grants = '{}', state = 'Withdrawing',
           generation = nextval('platform.generation_seq'), updated_at = now()
         where path = $1`,
        [path]
      )
    )
    if (typeof row.plan === "string") yield* PlanStore.end(tx, row.plan, "Overtaken", "its definition is gone")
    yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`def:${path}`]))
  }
  // whoever still serves it would meet a table that he may not touch, and take that for a fault
  const behind = (yield* servingOf(tx, path))?.behind ?? []
  if (behind.length > 0) return { _tag: "Waits", for: behind }
  yield* revoke(tx, withdrawal, String(row.pg_schema), String(row.pg_table))
  return { _tag: "Done" }
})
