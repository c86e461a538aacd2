/** A process that owns an embedded server until it is killed: `node EmbeddedParent.ts <folder>`. Prints `{port, pid}`. */
import * as Effect from "effect/Effect"
import * as EmbeddedServer from "../../src/postgres/EmbeddedServer.ts"

const program = Effect.gen(function* () {
  const server = yield* EmbeddedServer.make({ dataDir: process.argv[2] ?? "", durable: false })
  process.stdout.write(`${JSON.stringify({ port: server.port, pid: server.pid })}\n`)
  // a timer keeps the process alive
  return yield* Effect.forever(Effect.sleep("1 hour"))
})

await Effect.runPromise(Effect.scoped(program))
