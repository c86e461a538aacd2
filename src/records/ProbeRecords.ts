/**
 * Tries a record type out: runs what the API would run for each operation that somebody is granted, as the domain's roles,
 * and undoes it. No record is touched; the reads look for one that there cannot be, and the writes write none.
 *
 * What Postgres refuses here it would refuse every caller: a column or a privilege that is not there, a policy that
 * errs, a statement that does not compile.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { grantsOf } from "../domain/Access.ts"
import type { Caller } from "../domain/Identity.ts"
import { type Operation, operations } from "../domain/Operation.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Statement } from "../postgres/Statement.ts"
import { TenantTx } from "../postgres/TenantTx.ts"
import { bulkSql } from "./bulk/BulkSql.ts"
import { Joins } from "./read/Joins.ts"
import { orderOf, QueryFaults } from "./read/QuerySql.ts"
import * as ReadSql from "./read/ReadSql.ts"
import { enterFor } from "./type/Entering.ts"
import type { Peers, RecordType } from "./type/RecordType.ts"
import { changeSql } from "./write/WriteSql.ts"
import { shapeOf } from "./write/WriteType.ts"

/** See the module. */
export class ProbeRecords extends Context.Service<
  ProbeRecords,
  {
    /** Fails with what Postgres refused first; `isRefusal` tells it from a database that does not answer. */
    readonly probe: (type: RecordType, peers: Peers) => Effect.Effect<void, DatabaseFailure>
  }
>()("velocity/records/ProbeRecords") {
  static readonly layerNoDeps = Layer.effect(
    ProbeRecords,
    Effect.map(TenantTx, (tenant) =>
      ProbeRecords.of({
        probe: (type, peers) =>
          Effect.forEach(
            triesOf(type, peers),
            ({ caller, operation, statements }) =>
              tenant.bundle(enterFor(type, caller, operation), statements, "rollback"),
            { discard: true }
          )
      })
    )
  )
}

/** Whether a probe's failure is of the record type: trying again would not change it. */
export const isRefusal = ({ reason }: DatabaseFailure): boolean => {
  switch (reason._tag) {
    case "Unavailable":
    case "Timeout":
    case "CommitUnknown":
    case "Serialization":
    case "Deadlock":
    case "LockTimeout":
      return false
    // another generation is in force: that one is tried out next
    case "Platform":
      return reason.code !== "VL010"
    default:
      return true
  }
}

/** No record has it. */
const noRecord = "00000000-0000-0000-0000-000000000000"

const callerWith = (roles: ReadonlyArray<string>): Caller => ({
  identity: {
    actor: "velocity/probe",
    strategy: "velocity",
    subject: "probe",
    roles,
    attributes: {},
    expiresAt: Number.POSITIVE_INFINITY
  },
  roles,
  requestId: "probe",
  address: ""
})

interface Try {
  readonly operation: Operation
  readonly caller: Caller
  readonly statements: ReadonlyArray<Statement>
}

const statementsOf = (
  type: RecordType,
  peers: Peers,
  caller: Caller,
  operation: Operation
): ReadonlyArray<Statement> => {
  const shape = shapeOf(type, caller, { peers })
  const facts = { event: noRecord, actor: caller.identity.actor, requestId: caller.requestId }
  const change = { id: noRecord, document: "{}", versions: undefined, system: [], systemDocument: "{}" }
  switch (operation) {
    case "read": {
      const shown = { chosen: undefined, included: [] }
      const order = orderOf(type, type.projection(caller.roles), [], new QueryFaults())
      const rows = {
        deleted: undefined,
        conditions: [() => `${ReadSql.rowAlias}.id = '${noRecord}'::uuid`]
      }
      const { joining } = new Joins(caller, shown)
      return [ReadSql.getSql(type, caller, noRecord), ReadSql.listSql(type, caller, rows, order, [], shown, 1, joining)]
    }
    case "history":
      return [ReadSql.historySql(type, caller, noRecord, undefined, 1)]
    case "create":
      return [bulkSql(shape, [], caller)]
    default:
      return [changeSql(shape, { ...change, operation }, facts)]
  }
}

/** Each operation with all the roles that grant it, and reading with each of them, where they see or reach otherwise. */
export const triesOf = (type: RecordType, peers: Peers): ReadonlyArray<Try> => {
  const tries: Array<Try> = []
  for (const operation of operations) {
    const roles = [...new Set(grantsOf(type.def.spec, operation).map((grant) => grant.role))].sort()
    if (roles.length === 0) continue
    const seen = new Set<string>()
    for (const some of operation === "read" ? [roles, ...roles.map((role) => [role])] : [roles]) {
      const caller = callerWith(some)
      const statements = statementsOf(type, peers, caller, operation)
      const texts = statements.map((one) => one.sql).join("\n")
      if (seen.has(texts)) continue
      seen.add(texts)
      tries.push({ operation, caller, statements })
    }
  }
  return tries
}
