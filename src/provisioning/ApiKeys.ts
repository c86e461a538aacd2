/**
 * The rows of API keys: minted in two transactions, changed, rotated out, revoked, never deleted.
 *
 * `prepare` keeps the hash of a key that nobody has yet and that opens nothing; then the key goes to its owner; `activate`
 * puts it in force. Whoever is interrupted in between begins again with another key: the one of before opens nothing, and
 * the one in force is always one that was delivered (fine print 29).
 */
import { Effect } from "effect"
import type { ApiKeySpec } from "../domain/ApiKey.ts"
import { overlapMillis, partsOfActor } from "../domain/ApiKey.ts"
import { namespaceOfStrategy, strategyCandidates, velocityNamespace } from "../domain/AuthStrategy.ts"
import { fingerprintOf } from "../domain/KeyText.ts"
import { sha256Hex } from "../domain/Sha256.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import type { Origin } from "./table/Origin.ts"
import { specHash } from "./table/SpecHash.ts"

/** A key as its row tells it. Times are ISO 8601, in UTC. */
export interface KeyRow {
  readonly id: string
  readonly fingerprint: string
  readonly serial: number
  readonly state: "Pending" | "Active" | "Retiring" | "Revoked"
  readonly chain: string | null
  readonly uid: string | null
  readonly specHash: string | null
  readonly rotation: string | null
  readonly secretName: string | null
  /** Of a key that was rotated out: when it ends. */
  readonly retiresAt: string | null
  readonly isPast: boolean
}

/** A key that is to be put in force. */
export interface Minting {
  readonly id: string
  readonly key: string
  readonly serial: number
  readonly secretName: string
  readonly rotation: string | null
}

/** Who does it, for the log, and whose key it is. */
export interface Hand {
  readonly actor: string
  readonly origin: Origin
}

/** The chain of a key; null for the platform's. */
export const chainOfKey = ({ app, domain, org }: ApiKeySpec): string | null =>
  org === undefined ? null : `${org}/${app}/${domain}`

const at = "to_char(retires_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
const rowsSql = `select id::text as id, left(encode(key_hash, 'hex'), 16) as fingerprint, serial, state, chain, uid, spec_hash,
    rotation, secret_name, ${at} as retires_at, coalesce(retires_at <= now(), false) as past
  from platform.api_keys where source = $1 and namespace = $2 and name = $3 and not departed order by serial`

const text = (value: unknown): string | null => (typeof value === "string" ? value : null)

/** The keys of one resource, oldest first, and the serial that comes next: serials go on where a resource is made again. */
export const keysOf = Effect.fnUntraced(function* (tx: Tx, { name, namespace, source }: Origin) {
  const { rows } = yield* tx.query(statement(rowsSql, [source, namespace, name]))
  const last = yield* tx.query(
    statement(
      "select coalesce(max(serial), 0) as last from platform.api_keys where source = $1 and namespace = $2 and name = $3",
      [source, namespace, name]
    )
  )
  return {
    next: Number(last.rows[0]?.last ?? 0) + 1,
    keys: rows.map(
      (row): KeyRow => ({
        id: String(row.id),
        fingerprint: String(row.fingerprint),
        serial: Number(row.serial),
        state: row.state as KeyRow["state"],
        chain: text(row.chain),
        uid: text(row.uid),
        specHash: text(row.spec_hash),
        rotation: text(row.rotation),
        secretName: text(row.secret_name),
        retiresAt: text(row.retires_at),
        isPast: row.past === true
      })
    )
  }
})

/** Why a key would open nothing, with the reason of the condition that says so. */
export interface TrustFault {
  readonly reason: "ParentMissing" | "StrategyMissing" | "NotTrusted"
  readonly message: string
}

const trusting = (reason: TrustFault["reason"], message: string): TrustFault => ({ reason, message })

/**
 * Why a key of this actor would open nothing in its domain; undefined where it would. Judged by the mirrors, which are what
 * the API goes by; of the platform's trust only the API knows.
 */
export const trustFault = Effect.fnUntraced(function* (tx: Tx, spec: ApiKeySpec) {
  const { strategy } = partsOfActor(spec.actor)
  const chain = chainOfKey(spec)
  const { rows } = yield* tx.query(
    statement(
      "select id, spec ->> 'type' as type, (spec #> '{composite,strategies}')::text as members from platform.auth_strategies"
    )
  )
  const types = new Map(rows.map((row) => [String(row.id), String(row.type)]))
  const type = types.get(strategy)
  if (type === undefined) {
    return trusting("StrategyMissing", `the AuthStrategy ${strategy}, of whose actors it is, is not there`)
  }
  if (type !== "apikey") {
    const message = `the AuthStrategy ${strategy} is of type ${type}: a key's actor is of one of type apikey`
    return trusting("NotTrusted", message)
  }
  if (chain === null) {
    return namespaceOfStrategy(strategy) === velocityNamespace
      ? undefined
      : trusting("NotTrusted", `the AuthStrategy ${strategy} is not one of ${velocityNamespace}`)
  }
  const found = yield* tx.query(
    statement("select auth_strategy from platform.domains where chain = $1 and spec is not null", [chain])
  )
  if (found.rows[0] === undefined) return trusting("ParentMissing", `the domain ${chain} is not there`)
  const named = text(found.rows[0].auth_strategy)
  if (named === null) return trusting("NotTrusted", `the domain ${chain} trusts no AuthStrategy`)
  const members = rows.find((row) => row.id === named)?.members
  const trusted =
    typeof members === "string"
      ? (JSON.parse(members) as ReadonlyArray<string>).map((one) =>
          strategyCandidates(namespaceOfStrategy(named), one).find((id) => types.has(id))
        )
      : [named]
  return trusted.includes(strategy)
    ? undefined
    : trusting(
        "NotTrusted",
        `the domain ${chain} trusts ${named}, and not ${strategy}: let it name ${strategy}, or a composite that has it`
      )
})

const narrowing = (spec: ApiKeySpec): ReadonlyArray<unknown> => [
  JSON.stringify(spec.roles ?? []),
  spec.scopes === undefined ? null : JSON.stringify(spec.scopes),
  JSON.stringify(spec.ipAllowlist ?? []),
  spec.expiresAt ?? null,
  specHash(spec)
]

const prepareSql = `insert into platform.api_keys (id, key_hash, actor, chain, roles, scopes, ip_allowlist, expires_at, spec_hash,
    state, serial, secret_name, rotation, source, namespace, name, uid, resource_generation)
  select $1::uuid, decode($2, 'hex'), $3, $4, array(select jsonb_array_elements_text($5::text::jsonb)), $6::text::jsonb,
    array(select jsonb_array_elements_text($7::text::jsonb)), $8::text::timestamptz, $9, 'Pending', $10::int, $11, $12, $13, $14, $15, $16, $17::int8
  on conflict (source, namespace, name) where state = 'Pending' do update set id = excluded.id, key_hash = excluded.key_hash,
    actor = excluded.actor, chain = excluded.chain, roles = excluded.roles, scopes = excluded.scopes,
    ip_allowlist = excluded.ip_allowlist, expires_at = excluded.expires_at, spec_hash = excluded.spec_hash,
    serial = excluded.serial, secret_name = excluded.secret_name, rotation = excluded.rotation, uid = excluded.uid,
    resource_generation = excluded.resource_generation, departed = false, created_at = now(), updated_at = now()`

/** Keeps the hash of a key that opens nothing yet, in the place of one that was never delivered. */
export const prepare = (tx: Tx, spec: ApiKeySpec, { id, key, rotation, secretName, serial }: Minting, origin: Origin) =>
  tx.query(
    statement(prepareSql, [
      id,
      sha256Hex(key),
      spec.actor,
      chainOfKey(spec),
      ...narrowing(spec),
      serial,
      secretName,
      rotation,
      origin.source,
      origin.namespace,
      origin.name,
      origin.uid ?? null,
      origin.generation === undefined ? null : String(origin.generation)
    ])
  )

/** Tells the API that keys of a domain have changed. */
const notified = (tx: Tx, chain: string | null) =>
  tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`keys:${chain ?? "platform"}`]))

const entered = (
  tx: Tx,
  hand: Hand,
  chain: string | null,
  action: `key.${string}`,
  payload: Readonly<Record<string, unknown>>
) => AuditChain.insert(tx, { chain: chain ?? "platform", actor: hand.actor, action, outcome: "ok", payload })

/**
 * Puts a delivered key in force; the one of before works on for the overlap. Answers whether it was still the one that was
 * prepared.
 */
export const activate = Effect.fnUntraced(function* (
  tx: Tx,
  spec: ApiKeySpec,
  { id, key, secretName }: Minting,
  hand: Hand
) {
  const { name, namespace, source } = hand.origin
  const overlap = overlapMillis(spec)
  // before anything is rotated out: what is in force stays so where the key that is to follow was replaced
  const pending = yield* tx.query(
    statement("select from platform.api_keys where id = $1::uuid and state = 'Pending' for update", [id])
  )
  if (pending.rowCount !== 1) return false
  const before = yield* tx.query(
    statement(
      `update platform.api_keys set state = case when $4::float8 = 0 then 'Revoked' else 'Retiring' end,
         revoked_at = case when $4::float8 = 0 then now() end, retires_at = now() + make_interval(secs => $4::float8 / 1000),
         generation = nextval('platform.generation_seq'), updated_at = now()
       where source = $1 and namespace = $2 and name = $3 and state = 'Active'
       returning left(encode(key_hash, 'hex'), 16) as fingerprint, ${at} as retires_at`,
      [source, namespace, name, overlap]
    )
  )
  yield* tx.query(
    statement(
      "update platform.api_keys set state = 'Active', generation = nextval('platform.generation_seq'), updated_at = now() where id = $1::uuid",
      [id]
    )
  )
  const chain = chainOfKey(spec)
  yield* notified(tx, chain)
  const [replaced] = before.rows
  yield* entered(tx, hand, chain, "key.create", {
    key: id,
    fingerprint: fingerprintOf(sha256Hex(key)),
    actor: spec.actor,
    roles: spec.roles ?? [],
    ...(spec.scopes === undefined ? {} : { scopes: spec.scopes }),
    ...(spec.ipAllowlist === undefined ? {} : { ipAllowlist: spec.ipAllowlist }),
    expiresAt: spec.expiresAt ?? null,
    in: `${namespace}/${secretName}`,
    ...(replaced === undefined ? {} : { replaces: replaced.fingerprint, until: replaced.retires_at })
  })
  return true
})

/** Makes the keys in force, those that are being rotated out too, what their resource says now. */
export const narrow = Effect.fnUntraced(function* (tx: Tx, spec: ApiKeySpec, hand: Hand) {
  const { name, namespace, source } = hand.origin
  const { rows } = yield* tx.query(
    statement(
      `update platform.api_keys set roles = array(select jsonb_array_elements_text($4::text::jsonb)), scopes = $5::text::jsonb,
         ip_allowlist = array(select jsonb_array_elements_text($6::text::jsonb)), expires_at = $7::text::timestamptz, spec_hash = $8,
         generation = nextval('platform.generation_seq'), updated_at = now()
       where source = $1 and namespace = $2 and name = $3 and state in ('Active', 'Retiring') and spec_hash is distinct from $8
       returning left(encode(key_hash, 'hex'), 16) as fingerprint`,
      [source, namespace, name, ...narrowing(spec)]
    )
  )
  if (rows.length === 0) return
  const chain = chainOfKey(spec)
  yield* notified(tx, chain)
  yield* entered(tx, hand, chain, "key.change", {
    fingerprints: rows.map((row) => row.fingerprint),
    actor: spec.actor,
    roles: spec.roles ?? [],
    scopes: spec.scopes ?? [],
    ipAllowlist: spec.ipAllowlist ?? [],
    expiresAt: spec.expiresAt ?? null
  })
})

/** Which keys are to be revoked, of those of one resource. */
export type Revoking =
  /** All, because the resource is gone. */
  | { readonly _tag: "All"; readonly why: string }
  /** Some, by their ids; `departed` where their resource is gone and another has its name. */
  | { readonly _tag: "Some"; readonly ids: ReadonlyArray<string>; readonly why: string; readonly departed: boolean }

/** Revokes keys at once; answers how many opened something until now. */
export const revoke = Effect.fnUntraced(function* (tx: Tx, revoking: Revoking, hand: Hand) {
  const { name, namespace, source } = hand.origin
  const departed = revoking._tag === "All" || revoking.departed
  const { rows } = yield* tx.query(
    statement(
      `with revoked as (select id from platform.api_keys where source = $1 and namespace = $2 and name = $3
           and ($4::text[] is null or id::text = any ($4)) and state <> 'Revoked'),
         gone as (update platform.api_keys set departed = true where $5::text::boolean and source = $1 and namespace = $2 and name = $3
           and ($4::text[] is null or id::text = any ($4)) and state = 'Revoked')
       update platform.api_keys k set state = 'Revoked', revoked_at = coalesce(k.revoked_at, now()), departed = departed or $5::text::boolean,
         generation = nextval('platform.generation_seq'), updated_at = now()
       from (select r.id, p.state as was from revoked r join platform.api_keys p on p.id = r.id) r where k.id = r.id
       returning k.id::text as id, r.was, k.actor, k.chain, left(encode(k.key_hash, 'hex'), 16) as fingerprint`,
      [source, namespace, name, revoking._tag === "All" ? null : revoking.ids, String(departed)]
    )
  )
  const opened = rows.filter((row) => row.was !== "Pending")
  for (const row of opened) {
    const chain = text(row.chain)
    yield* notified(tx, chain)
    yield* entered(tx, hand, chain, "key.revoke", {
      key: row.id,
      fingerprint: row.fingerprint,
      actor: row.actor,
      why: revoking.why
    })
  }
  return opened.length
})
