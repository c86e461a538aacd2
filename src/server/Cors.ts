/**
 * Which browsers' pages may call (Fetch standard §3.2): those of `VELOCITY_CORS_ORIGINS`, none by default.
 *
 * Credentials are never allowed: the token stands in a header that the page itself sets, so there is no cookie that a
 * foreign page could ride on.
 */

/** What a page may read of an answer beyond the safelisted headers. */
const exposed =
  "Deprecation, ETag, Link, Location, Preference-Applied, Retry-After, Sunset, WWW-Authenticate, X-Request-Id"
/** What a page may send. */
const sent =
  "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Prefer, X-API-Key, X-Request-Id, X-Velocity-Reason, X-Velocity-Ticket"

/** The headers of answers, made of the configured origins. */
export interface Cors {
  /** Of an answer to this origin; undefined where there is nothing to say. */
  readonly answer: (origin: string | undefined) => Readonly<Record<string, string>> | undefined
  /** Of a preflight from this origin, for a path with these methods. */
  readonly preflight: (origin: string | undefined, methods: string) => Readonly<Record<string, string>> | undefined
}

/** Makes it. `*` lets every page call. */
export const makeCors = (origins: ReadonlyArray<string>): Cors => {
  const anybody = origins.includes("*")
  const known = new Set(origins)
  const allowed = (origin: string | undefined): string | undefined =>
    origin === undefined ? undefined : anybody ? "*" : known.has(origin) ? origin : undefined
  return {
    answer: (origin) => {
      const allow = allowed(origin)
      return allow === undefined
        ? undefined
        : { "access-control-allow-origin": allow, "access-control-expose-headers": exposed }
    },
    preflight: (origin, methods) => {
      const allow = allowed(origin)
      return allow === undefined
        ? undefined
        : {
            "access-control-allow-origin": allow,
            "access-control-allow-methods": methods,
            "access-control-allow-headers": sent,
            "access-control-max-age": "600"
          }
    }
  }
}
