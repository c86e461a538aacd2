/**
 * What is known of the installation as a whole, as conditions like those of resources: row `Installation` of
 * `platform.resource_status`. The schedules say it, each its own type; it is written where it says something new.
 */
import { Clock, Effect } from "effect"
import { velocityNamespace } from "../../domain/AuthStrategy.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence } from "./Fence.ts"

/** `AuditVerified`: the log's last day is as it was written. `AuditSealed`: heads are signed. `PartitionsAhead`: months are. */
export type InstallationConditionType = "AuditVerified" | "AuditSealed" | "PartitionsAhead"

export interface InstallationCondition {
  readonly type: InstallationConditionType
  readonly status: "True" | "False"
  /** UpperCamelCase, for programs. */
  readonly reason: string
  /** For people; without figures that change while nothing else does. */
  readonly message: string
}

const where = "kind = 'Installation' and namespace = $1 and name = 'velocity'"

const readSql = `select c.value ->> 'status' as status, c.value ->> 'reason' as reason, c.value ->> 'message' as message
  from platform.resource_status, jsonb_array_elements(conditions) as c where ${where} and c.value ->> 'type' = $2`

/** The others stay as they are; the time of the transition stays with the status. */
const writeSql = `insert into platform.resource_status as r (kind, namespace, name, conditions)
  values ('Installation', $1, 'velocity', jsonb_build_array($3::jsonb || jsonb_build_object('lastTransitionTime', $4::text)))
  on conflict (kind, namespace, name) do update set updated_at = now(), conditions =
    (select coalesce(jsonb_agg(c.value order by c.ordinality), '[]')
     from jsonb_array_elements(r.conditions) with ordinality as c where c.value ->> 'type' <> $2)
    || jsonb_build_array($3::jsonb || jsonb_build_object('lastTransitionTime', coalesce(
         (select c.value ->> 'lastTransitionTime' from jsonb_array_elements(r.conditions) as c
          where c.value ->> 'type' = $2 and c.value ->> 'status' = $3::jsonb ->> 'status'), $4::text)))`

/** Says one condition. What cannot be written is logged, and said again with the next look: nothing waits for it. */
export const say = (condition: InstallationCondition): Effect.Effect<void, never, Fence> =>
  Effect.gen(function* () {
    const fence = yield* Fence
    const { rows } = yield* fence.read((tx) => tx.query(statement(readSql, [velocityNamespace, condition.type])))
    const [row] = rows
    const { message, reason, status, type } = condition
    if (row?.status === status && row.reason === reason && row.message === message) return
    const now = new Date(yield* Clock.currentTimeMillis).toISOString()
    const said = JSON.stringify({ type, status, reason, message })
    yield* fence.transaction((tx) => tx.query(statement(writeSql, [velocityNamespace, type, said, now])))
  }).pipe(
    Effect.catch((error) =>
      Effect.logWarning(`condition ${condition.type} of the installation could not be written`, error)
    )
  )
