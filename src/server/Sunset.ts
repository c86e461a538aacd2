/**
 * What a version of an object that is on its way out says of itself: `Deprecation` (RFC 9745), `Sunset` (RFC 8594), `Link`
 * to its successor (RFC 5829), and after its end 410.
 *
 * The headers are made once for each definition, and one that is in use costs a look at a key. Whether the end has come
 * is judged by the clock at each request, so nothing has to happen at that moment, and no two replicas differ by more
 * than their clocks.
 */
import { Clock, Effect } from "effect"
import { type Problem, problem } from "../domain/Problem.ts"
import type { RecordType } from "../records/type/RecordType.ts"
import type { Registry } from "./Registry.ts"

interface Ending {
  /** Milliseconds since 1970; infinite where no end is announced. */
  readonly endsAt: number
  readonly headers: Readonly<Record<string, string>>
  readonly successor: string | undefined
}

const endings = new WeakMap<RecordType, Ending>()

const endingOf = (type: RecordType): Ending | undefined => {
  const { lifecycle } = type.def.spec
  if (lifecycle === undefined || lifecycle.stage === "active") return undefined
  const known = endings.get(type)
  if (known !== undefined) return known
  const { deprecatedAt, successor, sunsetAt } = lifecycle
  const fresh: Ending = {
    endsAt: sunsetAt === undefined ? Number.POSITIVE_INFINITY : Date.parse(sunsetAt),
    headers: {
      // RFC 9745, 2.1: a Date of RFC 9651, in seconds; Sunset is an HTTP-date (RFC 8594, 3)
      ...(deprecatedAt === undefined ? {} : { deprecation: `@${Date.parse(deprecatedAt) / 1000}` }),
      ...(sunsetAt === undefined ? {} : { sunset: new Date(sunsetAt).toUTCString() })
    },
    successor
  }
  endings.set(type, fresh)
  return fresh
}

const headersOf = ({ headers, successor }: Ending, type: RecordType, registry: Registry["Service"]) => {
  const path = registry.successorOf(type.path, successor)
  return path === undefined ? headers : { ...headers, link: `</api/${path}>; rel="successor-version"` }
}

/** Fails with 410 `sunset` where a type's end has come. */
export const requireBeforeSunset = (
  type: RecordType,
  registry: Registry["Service"]
): Effect.Effect<void, Problem> | undefined => {
  const ending = endingOf(type)
  if (ending === undefined || ending.endsAt === Number.POSITIVE_INFINITY) return undefined
  return Effect.flatMap(Clock.currentTimeMillis, (now) =>
    now < ending.endsAt ? Effect.void : Effect.fail(problem("sunset", { headers: headersOf(ending, type, registry) }))
  )
}

/** An answer's headers with those of a type that is on its way out. */
export const withEnding = (
  headers: Readonly<Record<string, string>>,
  type: RecordType,
  registry: Registry["Service"]
): Readonly<Record<string, string>> => {
  const ending = endingOf(type)
  if (ending === undefined) return headers
  const own = headersOf(ending, type, registry)
  const links = [headers.link, own.link].filter((one) => one !== undefined).join(", ")
  return { ...headers, ...own, ...(links === "" ? {} : { link: links }) }
}
