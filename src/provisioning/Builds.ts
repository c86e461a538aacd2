/**
 * Index builds that go on while their operator looks after other resources: a build waits for every older snapshot of the
 * server, which may be hours. One for a path; it ends with the scope in which they are kept.
 */
import { Clock, Effect, Exit, Fiber, Option, Scope } from "effect"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"

/** A build: whether the index is there. */
export type Build = Effect.Effect<boolean, DatabaseFailure>

/** See the module. */
export interface Builds {
  /**
   * Begins a build unless just this one is going on already, and waits for its end until `until` (milliseconds since
   * 1970), one that was going on already not at all: none, where it has not come to its end, or too many go on for another
   * one to begin. Another one of the same path is given up first.
   */
  readonly go: (
    path: string,
    key: string,
    build: Build,
    until: number
  ) => Effect.Effect<Option.Option<boolean>, DatabaseFailure>
  /** Gives up a path's build, but one whose key begins so: what it builds is not wanted, and its lock is in the way. */
  readonly stop: (path: string, unless?: string) => Effect.Effect<void>
}

/** Builds at once: each holds a connection, of which an operator has ten. */
const atOnce = 3

/** In place: whoever begins one waits for its end. */
export const inPlace: Builds = { go: (_path, _key, build) => Effect.asSome(build), stop: () => Effect.void }

/** Builds that go on in the background, until the scope closes. */
export const make = Effect.gen(function* () {
  const scope = yield* Scope.Scope
  const going = new Map<string, { readonly key: string; readonly fiber: Fiber.Fiber<boolean, DatabaseFailure> }>()
  const stop: Builds["stop"] = Effect.fnUntraced(function* (path, unless) {
    const one = going.get(path)
    if (one === undefined || (unless !== undefined && one.key.startsWith(unless))) return
    yield* Fiber.interrupt(one.fiber)
    going.delete(path)
  })
  const go: Builds["go"] = Effect.fnUntraced(function* (path, key, build, until) {
    yield* stop(path, key)
    const known = going.get(path)
    if (known === undefined && going.size >= atOnce) return Option.none()
    const fiber = known?.fiber ?? (yield* Effect.forkIn(build, scope))
    going.set(path, { key, fiber })
    const left = known === undefined ? Math.max(0, until - (yield* Clock.currentTimeMillis)) : 0
    const exit = fiber.pollUnsafe() ?? Option.getOrUndefined(yield* Effect.timeoutOption(Fiber.await(fiber), left))
    if (exit === undefined) return Option.none()
    going.delete(path)
    return Option.some(yield* Exit.isSuccess(exit) ? Effect.succeed(exit.value) : Effect.failCause(exit.cause))
  })
  return { go, stop } satisfies Builds
})

/** Somebody's transaction, in words. */
export const transactionText = ({ application, login, pid }: Readonly<Record<string, unknown>>): string => {
  const who = [login, application].filter((one) => typeof one === "string" && one !== "")
  return `the transaction of pid ${String(pid)}${who.length === 0 ? "" : ` (${who.join(", ")})`}`
}

/** The sessions for whose transactions builds on a table wait at this moment, in words. */
export const waitsFor = (
  tx: Tx,
  schema: string,
  table: string
): Effect.Effect<ReadonlyArray<string>, DatabaseFailure> =>
  Effect.map(
    tx.query(
      statement(
        `select p.current_locker_pid::text as pid, a.usename::text as login, a.application_name::text as application
         from pg_stat_progress_create_index p left join pg_stat_activity a on a.pid = p.current_locker_pid
         where p.datname = current_database() and p.current_locker_pid <> 0
           and p.relid = (select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2)
         order by 1`,
        [schema, table]
      )
    ),
    ({ rows }) => rows.map(transactionText)
  )
