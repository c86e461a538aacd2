/**
 * By which AuthStrategy a domain's callers prove themselves: what the Domain names, else its Application, else its
 * Organisation, else (in `velocity dev` alone) the development issuer. One of those that was deleted and waits for its
 * children still says it: a parent that goes takes nothing from them.
 */
import { strategyCandidates, strategyId, velocityNamespace } from "../../domain/AuthStrategy.ts"
import type { ResourceOf } from "../../domain/Resource.ts"
import { applicationOf, isReady, organisationOf } from "./Parents.ts"
import type { World } from "./Reconciler.ts"

export interface EffectiveStrategy {
  /** Its id in `platform.auth_strategies`; undefined: nobody can prove himself. */
  readonly id: string | undefined
  /** What was named and cannot be used. */
  readonly problem: string | undefined
}

/** The strategy of a domain. */
export const effectiveStrategy = (world: World, domain: ResourceOf<"Domain">): EffectiveStrategy => {
  const above = [applicationOf(world, domain.spec), organisationOf(world, domain.spec.org)]
  const levels = [domain, ...above.flatMap((one) => (one?.stands === true ? [one.resource] : []))]
  const naming = levels.find((one) => one.spec.authStrategy !== undefined)
  const reference = naming?.spec.authStrategy
  if (naming === undefined || reference === undefined) return { id: world.fallbackStrategy, problem: undefined }
  const there = new Map(
    world
      .resources("AuthStrategy")
      // a composite of which a member is missing admits by the others
      .filter((one) => isReady(world, one) || one.spec.type === "composite")
      .map((one) => [strategyId(one.metadata.namespace, one.metadata.name), one])
  )
  const { namespace } = naming.metadata
  const candidates = strategyCandidates(namespace, reference)
  const id = candidates.find((one) => there.has(one))
  if (id === undefined) {
    const looked = [...new Set(candidates.length === 1 ? [velocityNamespace] : [namespace, velocityNamespace])].join(
      " or "
    )
    return {
      id: undefined,
      problem: `${naming.kind} ${naming.metadata.name} names the AuthStrategy ${reference}, which is not there: there is none in the namespace ${looked}`
    }
  }
  if (there.get(id)?.spec.type === "none" && naming.kind !== "Domain") {
    return { id: undefined, problem: `the AuthStrategy ${reference} is of type none, which a Domain must name itself` }
  }
  return { id, problem: undefined }
}
