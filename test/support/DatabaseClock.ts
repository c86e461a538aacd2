/**
 * A database whose clock a test moves: `now()` and `clock_timestamp()` are put aside in its own catalogue, and functions of
 * these names tell the time that the test says. So migrations' functions judge by it unchanged, under the real logins, and
 * no login could have told them: only a superuser can do this, and to this database alone.
 *
 * Defaults of columns are bound to the functions that were put aside, and go on telling the real time.
 */
import * as Effect from "effect/Effect"
import { connect, query, type TestDatabase } from "./Database.ts"

const said = (name: string, volatility: string) => [
  `alter function pg_catalog.${name}() rename to real_${name}`,
  `create function pg_catalog.${name}() returns timestamptz language sql ${volatility} security definer
     as 'select pg_catalog.real_${name}() + c.ahead from public.clock c'`
]

/** Takes the clock in hand; to be done before anything was asked of the database, since plans that were made keep theirs. */
export const takeClock = (database: TestDatabase) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(database.superuserUrl)
      for (const sql of [
        "create table public.clock (ahead interval not null)",
        "insert into public.clock values ('0')",
        ...said("now", "stable"),
        ...said("clock_timestamp", "volatile")
      ]) {
        yield* connection.query(sql)
      }
    })
  )

/** Moves it on, by hours: an interval of days would be another one where clocks change. */
export const moveClock = (database: TestDatabase, hours: number) =>
  query(database.superuserUrl, "update public.clock set ahead = ahead + make_interval(hours => $1::int4)", [hours])
