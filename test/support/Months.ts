/**
 * A log and a history that are older than the test: months of the past, with entries chained and hashed as audit_insert
 * would have, which only a superuser can put there, since audit_insert takes the time from the clock.
 */
import * as Effect from "effect/Effect"
import type { AuditKeys } from "../../src/operator/evidence/AuditKeys.ts"
import { query, type TestDatabase } from "./Database.ts"
import { seal } from "./Sealing.ts"

/** The name of the month so many months ago, e.g. audit_log_2025_03. */
export const monthOf = (database: TestDatabase, log: "audit_log" | "event_log", ago: number) =>
  Effect.map(
    query(
      database.superuserUrl,
      "select format('%s_%s', $1::text, to_char(date_trunc('month', now() at time zone 'UTC') - make_interval(months => $2::int4), 'YYYY_MM')) as name",
      [log, ago]
    ),
    ([row]) => String(row?.name)
  )

/** Makes the months of both logs from so many months ago on. */
export const makeMonths = (database: TestDatabase, ago: number) =>
  query(
    database.operatorUrl,
    `select platform.audit_partition_create(m), platform.event_partition_create(m) from (
       select (date_trunc('month', now() at time zone 'UTC') - make_interval(months => n))::date as m from generate_series(1, $1::int4) n) t`,
    [ago]
  )

/**
 * Entries of a chain that has none yet: in each month from `ago` to `until` (the last one), `each` entries in each of the
 * lanes, from the fourth day on.
 */
export const writePast = (
  database: TestDatabase,
  chain: string,
  options: {
    readonly ago: number
    readonly until?: number
    readonly lanes: ReadonlyArray<number>
    readonly each: number
  }
) =>
  query(
    database.superuserUrl,
    `do $$
     declare
       v_lane int2; v_seq int8; v_prev bytea; v_at timestamptz; v_id uuid; v_payload jsonb;
     begin
       foreach v_lane in array array[${options.lanes.join(",")}]::int2[] loop
         v_seq := 0;
         v_prev := sha256(convert_to(format('velocity/audit/v1/%s/%s', '${chain}', v_lane), 'UTF8'));
         for m in reverse ${options.ago} .. ${options.until ?? 1} loop
           for i in 1 .. ${options.each} loop
             v_seq := v_seq + 1;
             v_at := (date_trunc('month', now() at time zone 'UTC') - make_interval(months => m)) at time zone 'UTC'
               + make_interval(days => 3, mins => i, secs => v_lane);
             v_id := encode(set_byte(overlay(uuid_send(gen_random_uuid()) placing substr(int8send((extract(epoch from v_at) * 1000)::int8), 3) from 1 for 6), 6, 112), 'hex')::uuid;
             v_payload := jsonb_build_object('n', i, 'é', E'line\\u2028', 'fields', array['name']);
             insert into platform.audit_log values ('${chain}', v_lane, v_seq, v_at, v_id, 'dev/alice', 'create', 'ok', null, v_id, v_payload,
               'r', null, null, null, 'velocity_api', 'x', v_prev,
               sha256('\\x00'::bytea || record_send(row('${chain}'::text, v_lane, v_seq, v_at, v_id, 'dev/alice'::text, 'create'::text, 'ok'::text,
                 null::text, v_id, v_payload, 'r'::text, null::text, null::text, null::jsonb, 'velocity_api'::text, 'x'::text, v_prev))));
             select a.hash into strict v_prev from platform.audit_log a where a.chain = '${chain}' and a.lane = v_lane and a.seq = v_seq;
           end loop;
         end loop;
       end loop;
     end $$`
  )

/** An event of a record, so many months ago. */
export const writeEvent = (
  database: TestDatabase,
  event: {
    readonly chain: string
    readonly storage: number
    readonly entity: string
    readonly version: number
    readonly ago: number
    readonly name: string
  }
) =>
  query(
    database.superuserUrl,
    `insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, changed, state, salt, hash)
     select gen_random_uuid(), $1, $2::int4, 1, $3::uuid, $4::int4, 'update',
       (date_trunc('month', now() at time zone 'UTC') - make_interval(months => $5::int4)) at time zone 'UTC' + interval '5 days' + make_interval(secs => $4::int4),
       'dev/alice', '{name}', s.state, '\\x01', platform.event_hash('\\x01', format('%s/%s/%s/update', $2::int4, $3::uuid, $4::int4), s.state)
     from (select jsonb_build_object('name', $6::text) as state) s`,
    [event.chain, event.storage, event.entity, event.version, event.ago, event.name]
  )

/** Entries of each lane in each month that `retireMonths` retires. */
export const retiredEntries = 2

/**
 * Months of a chain that were sealed, signed and retired, each as it is said, the last of them two months ago: all of the
 * chain's lanes go on from a head.
 */
export const retireMonths = Effect.fnUntraced(function* (
  database: TestDatabase,
  chain: string,
  keys: AuditKeys,
  dispositions: ReadonlyArray<"drop" | "keep">
) {
  const ago = dispositions.length + 1
  yield* query(database.superuserUrl, "insert into platform.domains (chain, pg_schema) values ($1, 'past')", [chain])
  yield* makeMonths(database, ago)
  const lanes = Array.from({ length: 32 }, (_, lane) => lane)
  yield* writePast(database, chain, { ago, until: 2, lanes, each: retiredEntries })
  yield* Effect.promise(() => seal(database, keys))
  yield* query(database.superuserUrl, "select audit_months from platform.retention_set(1, null)")
  for (const [at, disposition] of dispositions.entries()) {
    const month = yield* monthOf(database, "audit_log", ago - at)
    yield* query(database.operatorUrl, "select platform.partition_seal($1)", [month])
    yield* Effect.promise(() => seal(database, keys))
    yield* query(database.operatorUrl, "select platform.partition_retire($1, $2, null)", [month, disposition])
  }
  yield* query(database.superuserUrl, "delete from platform.domains where chain = $1", [chain])
})
