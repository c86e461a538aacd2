/**
 * `POST /api/platform/plan`: what applying a definition would do, for `platform-admin` and for `schema-planner` of its domain.
 *
 * What a definition says wrongly by itself is told here; the operator is asked about the table.
 */
import { Effect } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { VelocityApi } from "../api/VelocityApi.ts"
import { boundedFaults, type Fault, fault } from "../domain/Fault.ts"
import { chainOf, parseChain } from "../domain/Names.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import type { Answer } from "../provisioning/PlanShown.ts"
import { askedDefinition } from "../records/type/AskedDefinition.ts"
import { domainCaller, platformCaller } from "./Access.ts"
import { parsedBody } from "./Bringing.ts"
import { PlanRequests } from "./PlanRequests.ts"
import { headers } from "./PlatformHandlers.ts"
import { answering } from "./Problems.ts"
import { Registry } from "./Registry.ts"
import { readText, requireMediaType } from "./RequestBody.ts"
import type { ServerSettings } from "./ServerSettings.ts"

const planner = "schema-planner"
/** The most bytes of a manifest. */
const maxManifest = 1024 * 1024

const invalid = (faults: ReadonlyArray<Fault>): Problem =>
  problem("definition_refused", boundedFaults(faults, "Invalid: the definition contradicts itself"))

const failureOf = (answer: Exclude<Answer, { readonly _tag: "Shown" }>): Problem => {
  if (answer._tag === "Failed") return problem(answer.why, { detail: "the operator could not ask the database" })
  const detail = `${answer.reason}: ${answer.message}`
  if (answer.reason === "ParentMissing") return problem("not_found", { detail })
  return problem("definition_refused", answer.faults.length === 0 ? { detail } : boundedFaults(answer.faults, detail))
}

/** The group's handlers; `bodyTimeout` is how long a body may say nothing, `planTimeout` how long the operator is waited for. */
export const planHandlers = ({ bodyTimeout, planTimeout }: Pick<ServerSettings, "bodyTimeout" | "planTimeout">) =>
  HttpApiBuilder.group(VelocityApi, "planning", (handlers) =>
    Effect.gen(function* () {
      const registry = yield* Registry
      const requests = yield* PlanRequests

      const plan = Effect.fnUntraced(function* (
        path: string | undefined,
        request: HttpServerRequest.HttpServerRequest
      ) {
        if (path !== undefined && parseChain(path) === undefined) return yield* problem("not_found")
        const { identity } =
          path === undefined
            ? yield* platformCaller(registry, ["platform-admin"])
            : yield* domainCaller(registry, path, planner)
        yield* requireMediaType(request, ["application/json"])
        const text = yield* readText(request, { max: maxManifest, idle: bodyTimeout })
        // twice: the first refuses what JSON.parse lets pass, such as a key that is there twice
        yield* parsedBody(text)
        const manifest: unknown = JSON.parse(text)
        if (typeof manifest !== "object" || manifest === null || Array.isArray(manifest)) {
          return yield* invalid([fault([], "invalid", "a manifest is an object")])
        }
        const asked = askedDefinition(manifest as Readonly<Record<string, unknown>>)
        if ("faults" in asked) return yield* invalid(asked.faults)
        const chain = chainOf(asked.definition.spec)
        if (path !== undefined && path !== chain) {
          return yield* invalid([fault(["spec"], "invalid", "the definition is of another domain than `path` names")])
        }
        const answer = yield* requests.ask({
          chain,
          actor: identity.actor,
          manifest: text,
          within: planTimeout
        })
        if (answer._tag !== "Shown") return yield* failureOf(answer)
        return HttpServerResponse.text(JSON.stringify(answer.plan), { contentType: "application/json", headers })
      })

      return handlers.handleRaw("plan", ({ query, request }) => answering(plan(query.path, request)))
    })
  )
