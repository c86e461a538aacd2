/**
 * What a pool does over each of some URLs, told as JSON: a process of its own, because Node reads NODE_EXTRA_CA_CERTS
 * when it starts. Arguments: a role to enter, the URLs.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import type { DatabaseFailure } from "../../src/postgres/DatabaseFailure.ts"
import * as Session from "../../src/postgres/Session.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Transaction from "../../src/postgres/Transaction.ts"

const [role = "", ...urls] = process.argv.slice(2)

const enter = statement("select set_config('role', $1, true)", [role])
const insert = (id: number) => statement("insert into shop.item (id, name) values ($1, $2)", [id, `item ${id}`])
const count = statement("select count(*)::int as n from shop.item")
const reasonOf = <A>(effect: Effect.Effect<A, DatabaseFailure>): Effect.Effect<string> =>
  Effect.match(effect, { onFailure: (failure) => failure.reason._tag, onSuccess: () => "none" })

const everything = Effect.fnUntraced(function* (url: string) {
  const pool = yield* Session.make({
    url: Redacted.make(url),
    rolePrefix: "",
    name: "velocity test",
    maxConnections: 1,
    prepared: 500,
    statementTimeout: 5_000,
    maxTransaction: 30_000
  })
  const whether = statement("select ssl, pid from pg_stat_ssl where pid = pg_backend_pid()")
  const encrypted = (yield* Transaction.single(pool, whether)).rows[0]
  yield* Transaction.bundle(pool, enter, [statement("delete from shop.item")])
  const bundled = yield* Transaction.bundle(pool, enter, [insert(1), count])
  const dry = yield* Transaction.bundle(pool, enter, [insert(2), count], "rollback")
  const refused = yield* reasonOf(Transaction.bundle(pool, enter, [insert(3), insert(1), count]))
  const text = "é".repeat(3_000_000)
  const [long] = yield* Transaction.bundle(pool, enter, [statement("select $1::text as text", [text])], "read")
  const streamed = yield* Stream.runCount(
    Transaction.stream(pool, enter, statement("select i from generate_series(1, 20000) i"))
  )
  const started = yield* Deferred.make<void>()
  const sleeping = yield* Effect.forkChild(
    Transaction.run(pool, enter, (tx) =>
      tx
        .query(count)
        .pipe(
          Effect.andThen(Deferred.succeed(started, undefined)),
          Effect.andThen(tx.query(statement("select pg_sleep(4)")))
        )
    )
  )
  yield* Deferred.await(started)
  yield* Fiber.interrupt(sleeping)
  const [rest] = yield* Transaction.bundle(pool, enter, [count], "read")
  const after = (yield* Transaction.single(pool, whether)).rows[0]
  return {
    encrypted: encrypted?.ssl,
    bundled: bundled[1]?.rows[0]?.n,
    dry: dry[1]?.rows[0]?.n,
    refused,
    long: long?.rows[0]?.text === text,
    streamed,
    rest: rest?.rows[0]?.n,
    sameSession: after?.pid === encrypted?.pid
  }
})

const said = urls.map((url) =>
  Effect.scoped(everything(url)).pipe(
    Effect.catch((cause) => Effect.succeed({ failed: cause.reason._tag, because: cause.message }))
  )
)
console.log(JSON.stringify(await Effect.runPromise(Effect.all(said))))
