/**
 * One audit entry for each request that was refused to somebody: 401, 403, 410 of a version that has ended, and 503 where
 * what is needed to decide did not answer. Bounded by actor and address, in `records/Denials`.
 *
 * The entry is written before the refusal leaves, so that whoever is refused can find it; a database that does not take
 * it in time holds up the answer no longer than a second.
 */
import { Context, Effect, Fiber, Layer } from "effect"
import { platformChain } from "../access/Authorization.ts"
import type { Problem } from "../domain/Problem.ts"
import { Denials } from "../records/write/Denials.ts"
import type { Exchange } from "./Exchange.ts"
import { Registry } from "./Registry.ts"

/** The longest that an answer waits for its entry. */
const patience = "1 second"

/** What was asked for, in the audit log's words; of what is no act on records, the endpoint's name. */
const actions: Readonly<Record<string, string>> = {
  list: "read",
  query: "read",
  get: "read",
  history: "history",
  proof: "history",
  create: "create",
  patch: "update",
  put: "update",
  delete: "delete",
  restore: "restore",
  erase: "erase"
}

const isRefusal = ({ code, status }: Problem): boolean =>
  status === 401 || status === 403 || code === "sunset" || code === "dependency_unavailable"

/** See the module. */
export class Refusals extends Context.Service<
  Refusals,
  { readonly note: (exchange: Exchange, failure: Problem) => Effect.Effect<void> }
>()("velocity/server/Refusals") {
  static readonly layer = Layer.effect(
    Refusals,
    Effect.gen(function* () {
      const denials = yield* Denials
      const registry = yield* Registry
      const scope = yield* Effect.scope
      const entry = (exchange: Exchange, failure: Problem) => {
        const { chain = platformChain, route } = exchange
        return denials.record({
          // a domain that does not exist has no chain of its own
          chain: registry.strategiesOf(chain).length === 0 ? platformChain : chain,
          actor: exchange.actor ?? "anonymous",
          address: exchange.address,
          action:
            (route.group === "records" || route.group === "privacy" ? actions[route.endpoint] : undefined) ??
            `${route.group}.${route.endpoint}`,
          outcome: "denied",
          schemaPath: exchange.path,
          payload: { code: failure.code, status: failure.status, method: route.method, route: route.template },
          requestId: exchange.requestId
        })
      }
      return Refusals.of({
        note: (exchange, failure) =>
          isRefusal(failure)
            ? Effect.forkIn(entry(exchange, failure), scope).pipe(
                Effect.flatMap(Fiber.await),
                Effect.timeoutOption(patience),
                Effect.asVoid
              )
            : Effect.void
      })
    })
  )
}
