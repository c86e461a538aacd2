/**
 * Who is asking, as the contract sees it: a bearer token or an API key on every endpoint but those of the service's own
 * health.
 *
 * The server's implementation says who the caller is; the client's adds the header. Which strategy judges a token depends
 * on what is asked for: a domain's own for its records, the platform's for `/api/platform/*`.
 */
import { Context } from "effect"
import { HttpApiMiddleware, HttpApiSecurity, OpenApi } from "effect/http-api"
import type { Identity } from "../domain/Identity.ts"
import { problemsWith } from "./ProblemBody.ts"

/** The identity that the request's token or key proved; there for every handler behind `Bearer`. */
export class CurrentIdentity extends Context.Service<CurrentIdentity, Identity>()("velocity/api/CurrentIdentity") {}

const bearer = HttpApiSecurity.bearer.pipe(
  HttpApiSecurity.annotateMerge(
    OpenApi.annotations({
      description: "A JWT of an issuer that the domain trusts; for /api/platform one of the platform's own strategy",
      format: "JWT"
    })
  )
)

const apiKey = HttpApiSecurity.apiKey({ key: "x-api-key", in: "header" }).pipe(
  HttpApiSecurity.annotateMerge(
    OpenApi.annotations({
      description:
        "An API key, vel_{environment}_{43 characters of base64url}, of a domain whose strategy takes keys; `Authorization: ApiKey` means the same"
    })
  )
)

/** `Authorization: Bearer`, or an API key in `X-API-Key` or `Authorization: ApiKey`. */
export class Bearer extends HttpApiMiddleware.Service<Bearer, { provides: CurrentIdentity }>()("velocity/api/Bearer", {
  security: { bearer, apiKey },
  requiredForClient: true,
  error: problemsWith(401, 403, 404, 503)
}) {}
