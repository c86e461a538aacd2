/**
 * Plans in `platform.plans` and `platform.plan_steps`: as they were made, who approved them, and how far each has come. A plan
 * is resumed by the number of its step, whoever resumes it.
 */
import { Effect } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import type { Lock, Phase, Plan, Step } from "./Plan.ts"

/**
 * Waiting: for an approval. Running: being carried out, or to be resumed. Done, Overtaken (the table or the definition was
 * changed by somebody else) and Conflict (records contradict it) are ends.
 */
export type PlanState = "Waiting" | "Running" | "Done" | "Overtaken" | "Conflict"

export interface StoredPlan {
  readonly id: string
  readonly path: string
  readonly hash: string
  readonly specHash: string
  /** Of the catalogue as the last step left it. */
  readonly fingerprint: string
  readonly state: PlanState
  readonly message: string | undefined
  readonly approvedBy: string | undefined
  /** Milliseconds since it was made, or last found to be what would be made. */
  readonly age: number
}

export interface StoredStep extends Step {
  readonly position: number
  readonly state: "Pending" | "Running" | "Done"
  /** The last row of the last batch. */
  readonly after: string
  readonly rowsDone: number
}

type Row = Readonly<Record<string, unknown>>

const textOf = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)

const planSql = `select id::text as id, path, plan_hash, spec_hash, fingerprint, state, message, approved_by,
  (extract(epoch from now() - coalesce(looked_at, created_at)) * 1000)::float8 as age from platform.plans`

const planOfRow = (row: Row): StoredPlan => ({
  id: String(row.id),
  path: String(row.path),
  hash: String(row.plan_hash),
  specHash: String(row.spec_hash),
  fingerprint: String(row.fingerprint),
  state: row.state as PlanState,
  message: textOf(row.message),
  approvedBy: textOf(row.approved_by),
  age: Number(row.age)
})

const first = (rows: ReadonlyArray<Row>): StoredPlan | undefined =>
  rows[0] === undefined ? undefined : planOfRow(rows[0])

/** The plan of a path that waits or is carried out. */
export const open = (tx: Tx, path: string): Effect.Effect<StoredPlan | undefined, DatabaseFailure> =>
  Effect.map(
    tx.query(statement(`${planSql} where path = $1 and state in ('Waiting', 'Running')`, [path])),
    ({ rows }) => first(rows)
  )

export const byId = (tx: Tx, id: string): Effect.Effect<StoredPlan | undefined, DatabaseFailure> =>
  Effect.map(tx.query(statement(`${planSql} where id = $1::uuid`, [id])), ({ rows }) => first(rows))

/** The newest plan of a hash. */
export const byHash = (tx: Tx, hash: string): Effect.Effect<StoredPlan | undefined, DatabaseFailure> =>
  Effect.map(
    tx.query(statement(`${planSql} where plan_hash = $1 order by created_at desc limit 1`, [hash])),
    ({ rows }) => first(rows)
  )

/**
 * Whether somebody approved what is no more: the plan of this hash, where one is named, that was never begun; or the last
 * plan for this definition that anybody approved, which was overtaken before its end.
 */
export const isOvertaken = (
  tx: Tx,
  path: string,
  specHash: string,
  approved: string | undefined
): Effect.Effect<boolean, DatabaseFailure> =>
  Effect.map(
    tx.query(
      statement(
        `select ($3::text is not null and not exists (
             select from platform.plans where path = $1 and plan_hash = $3 and (approved_at is not null or state = 'Waiting')))
           or coalesce((select state = 'Overtaken' from platform.plans
             where path = $1 and spec_hash = $2 and approved_by is not null and state not in ('Waiting', 'Running')
             order by finished_at desc limit 1), false) as overtaken`,
        [path, specHash, approved ?? null]
      )
    ),
    ({ rows }) => rows[0]?.overtaken === true
  )

/** Remembers that a plan that waits is what would be made now. */
export const renew = (tx: Tx, id: string) =>
  tx.query(statement("update platform.plans set looked_at = now() where id = $1::uuid", [id]))

/** Counts an approval that has its effect now: whatever is planned after it has another hash. */
const countApproval = (tx: Tx, id: string) =>
  tx.query(
    statement(
      `update platform.schema_defs set approvals = approvals + 1
       where path = (select p.path from platform.plans p where p.id = $1::uuid)`,
      [id]
    )
  )

/** Keeps a plan that was made, and counts its approval. */
export const insert = Effect.fnUntraced(function* (
  tx: Tx,
  plan: Plan,
  state: "Waiting" | "Running",
  approvedBy: string | undefined
) {
  const { rows } = yield* tx.query(
    statement(
      `insert into platform.plans (path, plan_hash, spec_hash, fingerprint, state, message, approved_by, approved_at)
       values ($1, $2, $3, $4, $5, $6, $7, case when $7::text is not null then now() end) returning id::text as id`,
      [plan.path, plan.hash, plan.specHash, plan.fingerprint, state, plan.notes.join("; ") || null, approvedBy ?? null]
    )
  )
  const id = String(rows[0]?.id)
  yield* tx.query(
    statement(
      `insert into platform.plan_steps (plan_id, position, phase, does, sql, lock, rewrites, loses_data, needs_approval, is_concurrent, batched, object, estimate, why, computes)
       select $1::uuid, s.position, s.step ->> 'phase', s.step ->> 'does', s.step ->> 'sql', s.step ->> 'lock', (s.step ->> 'rewrites')::boolean,
         (s.step ->> 'losesData')::boolean, (s.step ->> 'needsApproval')::boolean, (s.step ->> 'concurrently')::boolean,
         (s.step ->> 'batched')::boolean, s.step ->> 'object', (s.step ->> 'estimate')::int8, s.step ->> 'why', s.step ->> 'computes'
       from jsonb_array_elements($2::jsonb) with ordinality as s(step, position)`,
      [id, JSON.stringify(plan.steps)]
    )
  )
  if (approvedBy !== undefined) yield* countApproval(tx, id)
  return id
})

export const steps = (tx: Tx, id: string): Effect.Effect<ReadonlyArray<StoredStep>, DatabaseFailure> =>
  Effect.map(
    tx.query(
      statement(
        `select position, phase, does, sql, lock, rewrites, loses_data, needs_approval, is_concurrent, batched, computes, object,
           estimate::text as estimate, why, state, coalesce(after::text, '00000000-0000-0000-0000-000000000000') as after, rows_done::text as rows_done
         from platform.plan_steps where plan_id = $1::uuid order by position`,
        [id]
      )
    ),
    ({ rows }) =>
      rows.map(
        (row): StoredStep => ({
          position: Number(row.position),
          phase: row.phase as Phase,
          does: String(row.does),
          sql: String(row.sql),
          lock: row.lock as Lock,
          rewrites: row.rewrites === true,
          losesData: row.loses_data === true,
          needsApproval: row.needs_approval === true,
          concurrently: row.is_concurrent === true,
          batched: row.batched === true,
          repairs: false,
          computes: textOf(row.computes),
          object: textOf(row.object),
          estimate: row.estimate === null ? undefined : Number(row.estimate),
          why: textOf(row.why),
          state: row.state as StoredStep["state"],
          after: String(row.after),
          rowsDone: Number(row.rows_done)
        })
      )
  )

/** Records an approval, and that the plan is to be carried out. */
export const approve = (tx: Tx, id: string, by: string) =>
  Effect.andThen(
    tx.query(
      statement(
        "update platform.plans set state = 'Running', approved_by = $2, approved_at = now() where id = $1::uuid",
        [id, by]
      )
    ),
    countApproval(tx, id)
  )

/** Ends a plan. */
export const end = (tx: Tx, id: string, state: "Done" | "Overtaken" | "Conflict", message?: string) =>
  tx.query(
    statement(
      "update platform.plans set state = $2, message = coalesce($3, message), finished_at = now() where id = $1::uuid",
      [id, state, message ?? null]
    )
  )

/** Records how the catalogue was left. */
export const leave = (tx: Tx, id: string, fingerprint: string) =>
  tx.query(statement("update platform.plans set fingerprint = $2 where id = $1::uuid", [id, fingerprint]))

export const mark = (tx: Tx, id: string, positions: ReadonlyArray<number>, state: "Running" | "Done") =>
  tx.query(
    statement(
      `update platform.plan_steps set state = $3, started_at = coalesce(started_at, now()), finished_at = case when $3 = 'Done' then now() end
       where plan_id = $1::uuid and position = any ($2::int4[])`,
      [id, positions, state]
    )
  )

export const progress = (tx: Tx, id: string, position: number, after: string, rows: number) =>
  tx.query(
    statement(
      `update platform.plan_steps set state = 'Running', started_at = coalesce(started_at, now()), after = $3::uuid, rows_done = rows_done + $4
       where plan_id = $1::uuid and position = $2`,
      [id, position, after, rows]
    )
  )
