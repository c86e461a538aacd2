/** What every request meets before and after its handler, over real sockets, with handlers made for the purpose. */
import { connect } from "node:net"
import { type Context, Effect, Layer, Redacted, Stream } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Bearer, CurrentIdentity } from "../../src/api/Bearer.ts"
import { allowedOf, routes, routesOf } from "../../src/api/Routes.ts"
import { VelocityApi } from "../../src/api/VelocityApi.ts"
import { type Problem, problem, problems } from "../../src/domain/Problem.ts"
import { CurrentExchange, type Exchange } from "../../src/server/Exchange.ts"
import { HttpMetrics, RequestMetrics } from "../../src/server/HttpMetrics.ts"
import { IsolationGate } from "../../src/server/IsolationGate.ts"
import { answering } from "../../src/server/Problems.ts"
import { Readiness } from "../../src/server/Readiness.ts"
import { Refusals } from "../../src/server/Refusals.ts"
import { readStream, readText, requireMediaType } from "../../src/server/RequestBody.ts"
import { listening, ServerAddress } from "../../src/server/Server.ts"
import { maxJsonBody } from "../../src/server/ServerSettings.ts"
import { raw, send } from "./Requests.ts"
import { type Running, start } from "./Running.ts"

const path = "/api/acme/geo/atlas/country/v1"
const text = (body: string) => HttpServerResponse.text(body, { contentType: "application/json" })
const refused: Array<{ readonly exchange: Exchange; readonly failure: Problem }> = []
let closed: Problem | undefined
const logs: Array<unknown> = []
const entered: Array<() => void> = []
const enter = () => {
  for (const one of entered.splice(0)) one()
}

const body = (idle: number) =>
  answering(
    Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      yield* requireMediaType(request, ["application/json"])
      const read = yield* readText(request, { max: maxJsonBody, idle })
      return text(JSON.stringify({ length: read.length }))
    })
  )

const records = HttpApiBuilder.group(VelocityApi, "records", (handlers) =>
  handlers
    .handleRaw("list", ({ query }) => Effect.succeed(text(JSON.stringify(query))))
    .handleRaw("get", ({ params }) =>
      params.id === "dies"
        ? Effect.die(new Error("secret detail"))
        : params.id === "waits"
          ? Effect.andThen(Effect.sync(enter), Effect.never)
          : params.id === "forbidden"
            ? answering(Effect.fail(problem("operation_not_granted")))
            : Effect.succeed(text(JSON.stringify(params)))
    )
    .handleRaw("create", () => body(200))
    .handleRaw("query", () =>
      answering(
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          let size = 0
          let chunks = 0
          yield* Stream.runForEach(readStream(request, 200), (bytes) =>
            Effect.sync(() => {
              size += bytes.length
              chunks += 1
            })
          )
          return text(JSON.stringify({ size, chunked: chunks > 1 }))
        })
      )
    )
    .handleRaw("patch", () => body(200))
    .handleRaw("put", () => body(200))
    .handleRaw("delete", () => Effect.succeed(HttpServerResponse.empty({ status: 204 })))
    .handleRaw("restore", () => Effect.succeed(text("{}")))
    .handleRaw("history", () => Effect.succeed(text("{}")))
    .handleRaw("proof", () => Effect.succeed(text("{}")))
)
const privacy = HttpApiBuilder.group(VelocityApi, "privacy", (handlers) =>
  handlers.handleRaw("erase", () => Effect.succeed(text("{}")))
)
const me = HttpApiBuilder.group(VelocityApi, "me", (handlers) =>
  handlers.handleRaw("me", ({ query }) => Effect.succeed(text(JSON.stringify(query))))
)
const platform = HttpApiBuilder.group(VelocityApi, "platform", (handlers) =>
  handlers
    .handleRaw("schemas", () => Effect.succeed(text("{}")))
    .handleRaw("audit", () => Effect.succeed(text("{}")))
    .handleRaw("verify", () => Effect.succeed(text("{}")))
    .handleRaw("checkpoint", () => Effect.succeed(text("{}")))
    .handleRaw("proof", () => Effect.succeed(text("{}")))
    .handleRaw("consistency", () => Effect.succeed(text("{}")))
    .handleRaw("tree", () => Effect.succeed(text("{}")))
)
const anomalies = HttpApiBuilder.group(VelocityApi, "anomalies", (handlers) =>
  handlers
    .handleRaw("list", () => Effect.succeed(text("{}")))
    .handleRaw("acknowledge", () => Effect.succeed(text("{}")))
    .handleRaw("scan", () => Effect.succeed(text("{}")))
)
const planning = HttpApiBuilder.group(VelocityApi, "planning", (handlers) =>
  handlers.handleRaw("plan", () => Effect.succeed(text("{}")))
)
const health = HttpApiBuilder.group(VelocityApi, "health", (handlers) =>
  handlers
    .handleRaw("healthz", () => Effect.succeed(text('{"status":"ok"}')))
    .handleRaw("readyz", () => Effect.succeed(text("{}")))
    .handleRaw("metrics", () => Effect.succeed(HttpServerResponse.text("")))
)
const identified: Context.Service.Shape<typeof Bearer>["bearer"] = (handler, { credential }) =>
  Effect.gen(function* () {
    const exchange = yield* CurrentExchange
    if (Redacted.value(credential) === "") {
      exchange.problem = problem("token_missing")
      return HttpServerResponse.empty({ status: 401 })
    }
    return yield* Effect.provideService(handler, CurrentIdentity, {
      actor: "s/a",
      strategy: "s",
      subject: "a",
      roles: [],
      attributes: {},
      expiresAt: 0
    })
  })
const bearer = Layer.succeed(Bearer)(Bearer.of({ bearer: identified, apiKey: identified }))
let draining = false
const services = Layer.mergeAll(
  Layer.succeed(Readiness)(
    Readiness.of({
      check: Effect.die("not asked"),
      drain: () => {
        draining = true
      },
      draining: () => draining
    })
  ),
  Layer.succeed(IsolationGate)(IsolationGate.of({ closed: () => closed, judge: Effect.succeed([]) })),
  Layer.effect(
    RequestMetrics,
    Effect.map(Effect.context<never>(), (context) => new HttpMetrics(context))
  ),
  Layer.succeed(Refusals)({ note: (exchange, failure) => Effect.sync(() => void refused.push({ exchange, failure })) })
)

const settings = {
  host: "127.0.0.1",
  port: 0,
  corsOrigins: ["https://app.example"],
  requestTimeout: 400,
  bodyTimeout: 200,
  planTimeout: 200,
  shutdownTimeout: 5_000
}
const server = listening(settings).pipe(
  Layer.provide([records, privacy, me, platform, planning, anomalies, health]),
  Layer.provide(bearer),
  Layer.provide(services)
)

let running: Running<ServerAddress>
let base: string
beforeAll(async () => {
  running = await start(server, logs)
  base = running.get(ServerAddress).url
})
afterAll(() => running.stop())

const token = "t"

describe("routes", () => {
  it("are those of the contract and those that describe it", () => {
    expect(routes.map((route) => `${route.method} ${route.template}`)).toMatchSnapshot()
  })

  it("are found by path, fixed steps first, and by nothing else", () => {
    expect([...routesOf(path).keys()].sort()).toEqual(["GET", "POST"])
    expect(routesOf("/api/platform/audit").get("GET")?.endpoint).toBe("audit")
    // and no id is called so
    expect([...routesOf(`${path}/query`).entries()].map(([method, route]) => [method, route.endpoint])).toEqual([
      ["POST", "query"]
    ])
    for (const nothing of ["", "/api", `${path}/`, `/${path}`, "//", "/api//geo/atlas/country/v1", "/Healthz"]) {
      expect(routesOf(nothing).size).toBe(0)
    }
    expect(allowedOf(routesOf(`${path}/x`))).toBe("DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
  })
})

describe("a request for what is not there", () => {
  it.each(["/nothing", "/api", `${path}/`, "/api/a%zz/b/c/d/v1", "/%", "/healthz/", "//healthz"])(
    "gets a 404 problem: %s",
    async (unknown) => {
      const reply = await send(base, unknown, { token })
      expect(reply.status).toBe(404)
      expect(reply.headers["content-type"]).toBe("application/problem+json")
      expect(reply.json).toMatchObject({
        type: "https://velocity.sh/problems/not_found",
        code: "not_found",
        status: 404,
        requestId: reply.headers["x-request-id"]
      })
    }
  )

  it("gets 405 with Allow for a method that the path does not answer", async () => {
    const reply = await send(base, path, { method: "DELETE", token })
    expect(reply.status).toBe(405)
    expect(reply.headers.allow).toBe("GET, HEAD, OPTIONS, POST")
    expect(reply.json.code).toBe("method_not_allowed")
    expect((await send(base, path, { method: "PROPFIND" })).status).toBe(405)
    const asked = await send(base, `${path}/query`, { token })
    expect([asked.status, asked.headers.allow]).toEqual([405, "OPTIONS, POST"])
    expect((await send(base, "/healthz", { method: "POST", body: "{}" })).status).toBe(405)
  })

  it("gets a problem where it is not even HTTP", async () => {
    for (const [bytes, status, code] of [
      ["nonsense\r\n\r\n", 400, "malformed_header"],
      ["GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "malformed_header"],
      [`GET /${"a".repeat(40_000)} HTTP/1.1\r\n`, 431, "headers_too_large"],
      ["GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n", 417, "expectation_failed"]
    ] as const) {
      const reply = await raw(base, bytes)
      expect(reply).toMatch(new RegExp(`^HTTP/1.1 ${status} `, "u"))
      expect(reply).toContain("application/problem+json")
      expect(reply).toContain(`"code":"${code}"`)
      expect(reply).toMatch(/"requestId":"[0-9a-f-]{36}"/u)
    }
    expect(await raw(base, "GET /healthz HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1.1 200/u)
  })
})

describe("every GET", () => {
  it("answers HEAD alike, without a body", async () => {
    for (const one of [path, "/api/me", "/healthz", "/openapi.json"]) {
      const [got, head] = [await send(base, one, { token }), await send(base, one, { token, method: "HEAD" })]
      expect(head.status).toBe(200)
      expect(head.text).toBe("")
      expect(head.headers["content-length"]).toBe(String(Buffer.byteLength(got.text)))
    }
    expect((await send(base, "/nothing", { method: "HEAD" })).status).toBe(404)
  })

  it("answers OPTIONS with Allow", async () => {
    const reply = await send(base, path, { method: "OPTIONS" })
    expect(reply.status).toBe(204)
    expect(reply.headers.allow).toBe("GET, HEAD, OPTIONS, POST")
    expect(reply.headers["access-control-allow-origin"]).toBeUndefined()
  })

  it("carries the headers that keep browsers out of it", async () => {
    const reply = await send(base, path, { token })
    expect(reply.headers).toMatchObject({
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'"
    })
  })

  it("refuses to answer with a type that it has not", async () => {
    const reply = await send(base, path, { token, headers: { accept: "text/html" } })
    expect(reply.status).toBe(406)
    expect(reply.json.code).toBe("not_acceptable")
    for (const accept of [
      "*/*",
      "application/*;q=0.1",
      "text/html, application/json;q=0.5",
      "application/problem+json"
    ]) {
      expect((await send(base, path, { token, headers: { accept } })).status).toBe(200)
    }
    expect((await send(base, path, { token, headers: { accept: "text/html, */*;q=0" } })).status).toBe(406)
  })

  it("lets the query through as it came", async () => {
    const reply = await send(base, `${path}?filter%5Bname%5D%5Beq%5D=a%2Bb&sort=x&sort=y&__proto__=1`, { token })
    expect(reply.text).toBe('{"filter[name][eq]":"a+b","sort":["x","y"],"__proto__":"1"}')
  })

  it.each(["%FF", "%ED%A0%80", "%zz", "%"])("refuses a query that stands for no text: %s", async (text) => {
    const reply = await send(base, `${path}?filter[name][neq]=${text}`, { token })
    expect([reply.status, reply.json.code]).toEqual([400, "malformed_query"])
  })

  it("refuses a parameter that it does not know, or that is repeated, with its place", async () => {
    const unknown = await send(base, "/api/me?what=1", { token })
    expect(unknown.status).toBe(400)
    expect(unknown.json).toMatchObject({ code: "malformed_query", errors: [{ pointer: "/what" }] })
    expect((await send(base, "/api/me?path=a&path=b", { token })).status).toBe(400)
  })
})

describe("CORS", () => {
  const asks = { origin: "https://app.example", "access-control-request-method": "PUT" }
  it("is for configured origins alone, and without credentials", async () => {
    const yes = await send(base, `${path}/1`, { method: "OPTIONS", headers: asks })
    expect(yes.headers).toMatchObject({
      "access-control-allow-origin": "https://app.example",
      "access-control-allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    })
    expect(yes.headers["access-control-allow-headers"]).toContain("Authorization")
    expect(yes.headers["access-control-allow-credentials"]).toBeUndefined()
    const no = await send(base, `${path}/1`, {
      method: "OPTIONS",
      headers: { ...asks, origin: "https://evil.example" }
    })
    expect(no.headers["access-control-allow-origin"]).toBeUndefined()
    const reply = await send(base, path, { token, headers: { origin: "https://app.example" } })
    expect(reply.headers["access-control-allow-origin"]).toBe("https://app.example")
    expect(reply.headers["access-control-expose-headers"]).toContain("ETag")
    expect(reply.headers.vary).toContain("Origin")
    const problemToo = await send(base, "/nothing", { headers: { origin: "https://app.example" } })
    expect(problemToo.headers["access-control-allow-origin"]).toBe("https://app.example")
  })
})

describe("a request's id", () => {
  it("is echoed where it is sane, and made anew where it is not", async () => {
    expect((await send(base, path, { token, headers: { "x-request-id": "abc-1.2" } })).headers["x-request-id"]).toBe(
      "abc-1.2"
    )
    for (const bad of ["a b", "x".repeat(129), "<script>", '"', "-x"]) {
      const echoed = (await send(base, path, { token, headers: { "x-request-id": bad } })).headers["x-request-id"]
      expect(echoed).toMatch(/^[0-9a-f-]{36}$/u)
    }
  })
})

describe("a handler that", () => {
  it("dies is a 500 that tells nothing, and is logged once under the request's id", async () => {
    logs.length = 0
    const reply = await send(base, `${path}/dies`, { token, headers: { "x-request-id": "dying" } })
    expect(reply.status).toBe(500)
    expect(reply.json).toEqual({
      type: "https://velocity.sh/problems/internal",
      title: problems.internal.title,
      status: 500,
      code: "internal",
      requestId: "dying"
    })
    expect(logs.length).toBe(1)
    expect(JSON.stringify(logs)).toContain("dying")
  })

  it("takes too long is a 503 with Retry-After", async () => {
    const reply = await send(base, `${path}/waits`, { token })
    expect(reply.status).toBe(503)
    expect(reply.json.code).toBe("timeout")
    expect(reply.headers["retry-after"]).toBe("1")
  })

  it("refuses somebody is noted, once, with what is known", async () => {
    refused.length = 0
    await send(base, `${path}/forbidden`, { token })
    await send(base, path)
    await send(base, `${path}/ok`, { token })
    expect(refused.map(({ exchange, failure }) => [failure.code, exchange.route.endpoint])).toEqual([
      ["operation_not_granted", "get"],
      ["token_missing", "list"]
    ])
  })
})

describe("a body", () => {
  const json = { "content-type": "application/json" }
  it("must be of a type that is understood", async () => {
    for (const headers of [
      { "content-type": "text/plain" },
      {},
      { "content-type": "application/json; charset=latin1" }
    ]) {
      const reply = await send(base, path, { method: "POST", token, headers, body: "{}" })
      expect(reply.status).toBe(415)
      expect(reply.headers["accept-post"]).toBe("application/json")
    }
    const coded = { ...json, "content-encoding": "gzip" }
    expect((await send(base, path, { method: "POST", token, headers: coded, body: "{}" })).status).toBe(415)
    const patch = await send(base, `${path}/1`, {
      method: "PATCH",
      token,
      headers: { "content-type": "text/x" },
      body: "{}"
    })
    expect(patch.headers["accept-patch"]).toBe("application/json")
    const fine = { "content-type": "Application/JSON; charset=UTF-8" }
    expect((await send(base, path, { method: "POST", token, headers: fine, body: "{}" })).json).toEqual({ length: 2 })
  })

  it("of more than 10 MiB is refused before it is read", async () => {
    const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n`
    const reply = await raw(base, `${head}Content-Length: ${20 * 1024 * 1024}\r\n\r\n{`)
    expect(reply).toMatch(/^HTTP\/1.1 413/u)
    expect(reply.toLowerCase()).toContain("connection: close")
    expect(reply).toContain("payload_too_large")
  })

  it("that says no length is bounded while it comes", async () => {
    const reply = await send(base, path, {
      method: "POST",
      token,
      headers: { ...json, "transfer-encoding": "chunked" },
      body: Buffer.alloc(maxJsonBody + 1, 0x20)
    })
    expect(reply.status).toBe(413)
    const most = await send(base, path, { method: "POST", token, headers: json, body: Buffer.alloc(maxJsonBody, 0x20) })
    expect(most.json).toEqual({ length: maxJsonBody })
  })

  it("that does not come is a 408", async () => {
    const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n`
    const reply = await raw(base, `${head}Content-Length: 10\r\n\r\n{`)
    expect(reply).toMatch(/^HTTP\/1.1 408/u)
    expect(reply).toContain("request_timeout")
    const stream = head.replace(path, `${path}/query`)
    expect(await raw(base, `${stream}Content-Length: 10\r\n\r\n{`)).toMatch(/^HTTP\/1.1 408/u)
  })

  it("that comes drop by drop is a 408 when the request's time is up", async () => {
    const { hostname, port } = new URL(base)
    const socket = connect({ host: hostname, port: Number(port) })
    socket.write(
      `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\n`
    )
    socket.write("Content-Length: 100000\r\n\r\n")
    const drops = setInterval(() => socket.write(" "), 50)
    let reply = ""
    for await (const bytes of socket) reply += bytes
    clearInterval(drops)
    expect(reply).toMatch(/^HTTP\/1.1 408/u)
    expect(reply).toContain("request_timeout")
  })

  it("that is no UTF-8 is malformed", async () => {
    const reply = await send(base, path, {
      method: "POST",
      token,
      headers: json,
      body: Buffer.from([0x22, 0xff, 0x22])
    })
    expect(reply.json.code).toBe("malformed_json")
  })

  it("is waited for with 100 Continue", async () => {
    const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\nConnection: close\r\n`
    const reply = await raw(base, `${head}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}`)
    expect(reply).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200/u)
    const refusedFirst = await raw(
      base,
      `${head.replace("application/json", "text/plain")}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n`
    )
    expect(refusedFirst).toMatch(/^HTTP\/1.1 415/u)
  })

  it("can be taken as it comes", async () => {
    const bytes = Buffer.alloc(3 * 1024 * 1024, 0x61)
    const reply = await send(base, `${path}/query`, { method: "POST", token, headers: json, body: bytes })
    expect(reply.json).toEqual({ size: bytes.length, chunked: true })
    const nothing = await send(base, `${path}/query`, { method: "POST", token, headers: json, body: "" })
    expect(nothing.json).toEqual({ size: 0, chunked: false })
  })
})

describe("while the gate is closed", () => {
  it("nothing about tenants is served, and health is", async () => {
    closed = problem("not_ready", { detail: "the isolation check found a violation" })
    try {
      for (const route of routes.filter(({ group }) => group !== "docs" && group !== "health")) {
        const reply = await send(base, route.template.replaceAll(":", ""), { method: route.method, token })
        expect([route.endpoint, reply.status, reply.json.code]).toEqual([route.endpoint, 503, "not_ready"])
      }
      expect((await send(base, "/healthz")).status).toBe(200)
    } finally {
      closed = undefined
    }
  })
})

describe("the description", () => {
  it("is OpenAPI 3.1 of every route of the contract", async () => {
    const { json } = await send(base, "/openapi.json")
    expect(json.openapi).toBe("3.1.0")
    const described = Object.entries(json.paths as Record<string, object>).flatMap(([template, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${template.replace(/\{(\w+)\}/gu, ":$1")}`)
    )
    const served = routes.filter(({ group }) => group !== "docs").map(({ method, template }) => `${method} ${template}`)
    expect(described.sort()).toEqual(served.sort())
    expect(Object.keys(json.components.schemas).filter((name) => /_[0-9]+$/u.test(name))).toEqual([])
  })

  it("has a page that speaks to no other server", async () => {
    const first = await send(base, "/")
    expect([first.status, first.headers.location]).toEqual([303, "/docs"])
    expect((await send(base, "/", { method: "POST" })).status).toBe(405)
    const page = await send(base, "/docs")
    expect(page.status).toBe(200)
    expect(page.headers["content-type"]).toContain("text/html")
    expect(page.headers["content-security-policy"]).toContain("default-src 'none'")
    expect(page.headers["content-security-policy"]).toContain("connect-src 'self'")
    expect(page.text).not.toMatch(/<(script|link)[^>]+(src|href)="https?:/u)
  })
})

describe("when it is told to stop", () => {
  it("lets what is under way end, and takes nothing new", async () => {
    const second = await start(
      listening({ ...settings, requestTimeout: 60_000 }).pipe(
        Layer.provide([records, privacy, me, platform, planning, anomalies, health]),
        Layer.provide(bearer),
        Layer.provide(services)
      ),
      logs
    )
    const address = second.get(ServerAddress).url
    const arrived = new Promise<void>((resolve) => entered.push(resolve))
    const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n`
    const waiting = send(address, `${path}/waits`, { token })
    await arrived
    const socket = connect({ host: "127.0.0.1", port: Number(new URL(address).port) })
    const reply = new Promise<string>((resolve) => {
      let all = ""
      socket.setEncoding("utf8").on("data", (chunk: string) => {
        all += chunk
      })
      socket.on("close", () => resolve(all))
      socket.on("error", () => resolve(all))
    })
    await new Promise<void>((resolve) =>
      socket.once("connect", () => socket.write(`${head}Content-Length: 2\r\n\r\n{`, () => resolve()))
    )
    const stopped = second.stop()
    // the listener is closed before requests have ended
    await expect
      .poll(() =>
        send(address, "/healthz").then(
          () => "served",
          () => "refused"
        )
      )
      .toBe("refused")
    socket.write("}")
    expect(await reply).toMatch(/^HTTP\/1.1 200.*connection: close/isu)
    await stopped
    expect(await waiting).toMatchObject({ status: 503, json: { code: "not_ready" } })
    draining = false
  }, 20_000)
})
