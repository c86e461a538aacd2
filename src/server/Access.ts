/**
 * The contract's `Bearer`, on the server: a request's token or key becomes an identity, judged by the strategies of what the
 * request is about. Which these are depends on the path: a domain's own for its records and for `?path=` of `/api/me` and
 * of the plan, the platform's alone for everything else, erasing a domain's record among it.
 */
import { Context, Effect, Layer, Result } from "effect"
import { HttpRouter, HttpServerRequest } from "effect/http"
import { Authenticator } from "../access/Authenticator.ts"
import { callerFor, platformChain, requirePlatformRole, type Target } from "../access/Authorization.ts"
import { credentialOf } from "../access/Credential.ts"
import { KeyAuthenticator } from "../access/KeyAuthenticator.ts"
import { Bearer, CurrentIdentity } from "../api/Bearer.ts"
import type { Caller, Identity } from "../domain/Identity.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { CurrentExchange, type Exchange } from "./Exchange.ts"
import { logged, problemResponse } from "./Problems.ts"
import type { Registry } from "./Registry.ts"
import { Registry as RegistryService } from "./Registry.ts"

type BearerService = Context.Service.Shape<typeof Bearer>

type Parameters = Readonly<Record<string, string | undefined>>

/** The chain that a path of either length names; what it names may not exist. */
export const chainOfPath = (path: string): string => path.split("/", 3).join("/")

/** Groups whose `?path=` says which domain they are asked about; without it they are asked of the platform. */
const namesDomain: ReadonlySet<string> = new Set(["me", "planning"])

/** What a request is about: the chain whose strategies judge its token. */
const chainOf = (
  group: string,
  parameters: Parameters,
  query: Readonly<Record<string, string | ReadonlyArray<string>>>
): string => {
  if (group === "records") return `${parameters.org}/${parameters.app}/${parameters.domain}`
  if (namesDomain.has(group) && typeof query.path === "string") return chainOfPath(query.path)
  return platformChain
}

/** Where a refusal is entered: of an erasure, in the chain of the domain whose record it is about. */
const auditedIn = (group: string, parameters: Parameters, judged: string): string =>
  group === "privacy" ? `${parameters.org}/${parameters.app}/${parameters.domain}` : judged

/** The platform's own paths are no secret, a tenant's are. */
const unlistedOnPlatform = { unlisted: "token_issuer" } as const

/** See the module. */
export const bearerLayer = Layer.effect(
  Bearer,
  Effect.gen(function* () {
    const authenticator = yield* Authenticator
    const keys = yield* KeyAuthenticator
    const registry = yield* RegistryService
    /** Whoever the request's credential proves; whose key was refused is noted, for the log. */
    const identify = (exchange: Exchange, chain: string, headers: HttpServerRequest.HttpServerRequest["headers"]) => {
      const credential = credentialOf(headers)
      if (Result.isFailure(credential)) return Effect.fail(credential.failure)
      const strategies = registry.strategiesOf(chain)
      if (credential.success._tag === "Key") {
        const { address } = exchange
        return Effect.mapError(keys.authenticate(credential.success.key, { chain, strategies, address }), (refused) => {
          exchange.actor = refused.actor
          return refused.problem
        })
      }
      const token = credential.success._tag === "Token" ? credential.success.token : undefined
      return authenticator.authenticate(token, strategies, chain === platformChain ? unlistedOnPlatform : undefined)
    }
    const authenticated: BearerService["bearer"] = (handler, { group }) =>
      Effect.withFiber((fiber) => {
        const { context } = fiber
        const exchange = Context.get(context, CurrentExchange)
        const request = Context.getUnsafe(context, HttpServerRequest.HttpServerRequest)
        const { params } = Context.getUnsafe(context, HttpRouter.RouteContext)
        const query = Context.getUnsafe(context, HttpServerRequest.ParsedSearchParams)
        const chain = chainOf(group.identifier, params, query)
        exchange.chain = auditedIn(group.identifier, params, chain)
        return Effect.matchEffect(identify(exchange, chain, request.headers), {
          onFailure: (failure: Problem) => {
            exchange.problem = failure
            return Effect.as(logged(failure, exchange), problemResponse(failure, exchange))
          },
          onSuccess: (identity) => {
            exchange.actor = identity.actor
            return Effect.provideService(handler, CurrentIdentity, identity)
          }
        })
      })
    // whichever scheme the contract tries first reads all headers, and answers: there is no second judge
    return Bearer.of({ bearer: authenticated, apiKey: authenticated })
  })
)

const sayable = /^[\P{Cc}]{1,1000}$/u

/** A header of the caller's own words; fails with 400 for control characters and more than 1,000 characters. */
const worded = (
  request: HttpServerRequest.HttpServerRequest,
  name: string
): Result.Result<string | undefined, Problem> => {
  const value = request.headers[name]
  return value === undefined || sayable.test(value)
    ? Result.succeed(value)
    : Result.fail(problem("malformed_header", { detail: `${name} has 1 to 1000 characters, none of them control` }))
}

/** An identity as the caller of a target, with the facts of its request. Fails with 400 and 403. */
export const callerOf = (
  registry: Registry["Service"],
  identity: Identity,
  target: Target,
  exchange: Exchange,
  request: HttpServerRequest.HttpServerRequest
): Result.Result<Caller, Problem> =>
  Result.flatMap(worded(request, "x-velocity-reason"), (reason) =>
    Result.flatMap(worded(request, "x-velocity-ticket"), (ticket) =>
      callerFor(
        identity,
        target,
        registry.bindingsOf(identity.actor, target.chain),
        registry.strategiesOf(platformChain),
        { requestId: exchange.requestId, address: exchange.address, reason, ticket },
        Date.now()
      )
    )
  )

/** The caller in a domain where he has this role in all of it. Fails with 403. */
export const domainCaller = Effect.fnUntraced(function* (registry: Registry["Service"], chain: string, role: string) {
  const exchange = yield* CurrentExchange
  const identity = yield* CurrentIdentity
  const request = yield* HttpServerRequest.HttpServerRequest
  const caller = yield* Effect.fromResult(callerOf(registry, identity, { chain }, exchange, request))
  if (caller.roles.includes(role)) return caller
  return yield* problem("operation_not_granted", { detail: `this asks for the role ${role} in the domain` })
})

/** The caller where he has one of the platform's roles. Fails with 403. */
export const platformCaller = Effect.fnUntraced(function* (
  registry: Registry["Service"],
  accepted: ReadonlyArray<`platform-${string}`>
) {
  const exchange = yield* CurrentExchange
  const identity = yield* CurrentIdentity
  const request = yield* HttpServerRequest.HttpServerRequest
  const caller = yield* Effect.fromResult(callerOf(registry, identity, { chain: platformChain }, exchange, request))
  yield* Effect.fromResult(requirePlatformRole(caller, accepted))
  return caller
})
