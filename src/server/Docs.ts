/**
 * `/docs`, and `/` that leads there: the contract as a page that can be read and tried out. Its script comes with it, so it needs no other server,
 * and it is allowed to speak to none but this one.
 */
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { HttpApiScalar } from "effect/http-api"
import { docsPath, rootPath } from "../api/Routes.ts"
import { VelocityApi } from "../api/VelocityApi.ts"

const policy = [
  "default-src 'none'",
  "script-src 'unsafe-inline' 'unsafe-eval'",
  "style-src 'unsafe-inline'",
  "img-src 'self' data: blob:",
  "font-src 'self' data:",
  "worker-src blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join("; ")

const withPolicy = HttpRouter.middleware((page) =>
  Effect.map(page, (response) =>
    HttpServerResponse.setHeaders(response, {
      "content-security-policy": policy,
      "cache-control": "public, max-age=300"
    })
  )
).layer

const page = HttpApiScalar.layer(VelocityApi, { path: docsPath, scalar: { withDefaultFonts: false } }).pipe(
  Layer.provide(withPolicy)
)

const toPage = HttpServerResponse.redirect(docsPath, { status: 303, headers: { "cache-control": "no-store" } })

/** See the module. */
export const docsLayer = Layer.merge(page, HttpRouter.add("GET", rootPath, toPage))
