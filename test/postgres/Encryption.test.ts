/** Sessions over TLS do what they do without, and `sslmode` means what docs/operations.md says. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { certificateFor } from "../support/Certificate.ts"
import { query } from "../support/Database.ts"
import { OwnServer } from "../support/OwnServer.ts"

type Said = Readonly<Record<string, unknown>>

/** What a client says of each URL that trusts one more authority than Node does. */
const client = (urls: ReadonlyArray<string>, authority: string): Promise<ReadonlyArray<Said>> =>
  new Promise((resolve, reject) => {
    const program = Path.join(import.meta.dirname, "../support/EncryptedClient.ts")
    const child = spawn(process.execPath, [program, "shop_writer", ...urls], {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: authority },
      stdio: ["ignore", "pipe", "inherit"]
    })
    let said = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text
    })
    child.once("close", (code) => (code === 0 ? resolve(JSON.parse(said)) : reject(new Error(`it ended with ${code}`))))
  })

const works = {
  bundled: 1,
  dry: 2,
  refused: "Unique",
  long: true,
  streamed: 20_000,
  rest: 1,
  sameSession: true
}

/** A database of the server with an empty `shop.item`, its login, and a role that this may enter. */
const shop = Effect.gen(function* () {
  const server = yield* OwnServer
  yield* server.sql("create role shop_login login noinherit password 'login'")
  yield* server.sql("create role shop_writer nologin")
  yield* server.sql("grant shop_writer to shop_login with inherit false, set true, admin false")
  yield* server.sql("create schema shop")
  yield* server.sql("create table shop.item (id int primary key, name text not null)")
  yield* server.sql("grant usage on schema shop to shop_writer")
  yield* server.sql("grant select, insert, delete on shop.item to shop_writer")
  const url = new URL(server.superuser("postgres"))
  url.username = "shop_login"
  url.password = "login"
  return (host: string) =>
    (mode: string | undefined): string => {
      const at = new URL(url)
      at.hostname = host
      if (mode !== undefined) at.searchParams.set("sslmode", mode)
      return at.href
    }
})

/** Gives the server a certificate for `localhost`, and answers where it is. */
const encrypt = Effect.gen(function* () {
  const server = yield* OwnServer
  const [row] = yield* server.sql("select current_setting('data_directory') as folder")
  const folder = String(row?.folder)
  const { certificate, key } = certificateFor("localhost")
  const [certificateFile, keyFile] = [Path.join(folder, "server.crt"), Path.join(folder, "server.key")]
  yield* Effect.promise(async () => {
    const { gid, uid } = await Fs.stat(folder)
    await Fs.writeFile(certificateFile, certificate)
    await Fs.writeFile(keyFile, key, { mode: 0o600 })
    for (const file of [certificateFile, keyFile]) await Fs.chown(file, uid, gid)
  })
  yield* server.sql("alter system set ssl = on")
  yield* server.sql("select pg_reload_conf()")
  yield* query(server.superuser("postgres"), "show ssl").pipe(Effect.repeat({ until: (rows) => rows[0]?.ssl === "on" }))
  return certificateFile
})

layer(OwnServer.layer(), { excludeTestServices: true, timeout: "2 minutes" })("encryption", (it) => {
  it.effect(
    "is as sslmode says, and the certificate is for the host or nothing is said",
    () =>
      Effect.gen(function* () {
        const at = yield* shop
        const ask = (urls: ReadonlyArray<string>, authority = "") => Effect.promise(() => client(urls, authority))
        const isRefused = (because: RegExp) => (said: Said | undefined) => {
          assert.strictEqual(said?.failed, "Unavailable", JSON.stringify(said))
          assert.match(String(said?.because), because)
        }
        const never = [undefined, "disable"]
        const perhaps = ["prefer", "allow"]
        const always = ["require", "verify-ca", "verify-full"]

        const without = yield* ask([...never, ...perhaps, ...always, "required"].map(at("localhost")))
        const open = { encrypted: false, ...works }
        assert.deepStrictEqual(without.slice(0, 4), [open, open, open, open])
        without.slice(4, 7).forEach(isRefused(/the server has no TLS/))
        isRefused(/sslmode=required is not known/)(without[7])

        const authority = yield* encrypt
        const secret = { encrypted: true, ...works }
        const trusting = yield* ask([...never, ...perhaps, ...always].map(at("localhost")), authority)
        assert.deepStrictEqual(trusting, [open, open, secret, secret, secret, secret, secret])
        const elsewhere = yield* ask([...perhaps, ...always].map(at("127.0.0.1")), authority)
        elsewhere.forEach(isRefused(/does not match certificate/))
        const distrusting = yield* ask([...perhaps, ...always].map(at("localhost")))
        distrusting.forEach(isRefused(/self-signed certificate/))
      }),
    120_000
  )
})
