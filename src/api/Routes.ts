/**
 * Every route there is: those of the contract, and the two that describe it. What a path may be asked for (405 with
 * Allow, OPTIONS) and under which template it is counted is read from here, and so is what the tests must cover.
 */
import { HttpApi } from "effect/http-api"
import { VelocityApi } from "./VelocityApi.ts"

/** One method on one path. */
export interface Route {
  /** `records`, `platform`, …; `docs` for what describes the contract. */
  readonly group: string
  readonly endpoint: string
  readonly method: string
  /** `/api/:org/:app/…`. */
  readonly template: string
}

export const openApiPath = "/openapi.json"
export const docsPath = "/docs"
/** Where a browser looks first: it is sent to the page. */
export const rootPath = "/"

const described: Array<Route> = []
HttpApi.reflect(VelocityApi, {
  onGroup: () => undefined,
  onEndpoint: ({ endpoint, group }) => {
    described.push({
      group: group.identifier,
      endpoint: endpoint.identifier,
      method: endpoint.method,
      template: endpoint.path
    })
  }
})

/** See the module. */
export const routes: ReadonlyArray<Route> = [
  ...described,
  { group: "docs", endpoint: "openapi", method: "GET", template: openApiPath },
  { group: "docs", endpoint: "page", method: "GET", template: docsPath },
  { group: "docs", endpoint: "root", method: "GET", template: rootPath }
]

interface Node {
  readonly fixed: Map<string, Node>
  any: Node | undefined
  readonly methods: Map<string, Route>
}

const node = (): Node => ({ fixed: new Map(), any: undefined, methods: new Map() })
const root = node()
for (const route of routes) {
  let at = root
  for (const step of route.template.slice(1).split("/")) {
    let next = step.startsWith(":") ? at.any : at.fixed.get(step)
    if (next === undefined) {
      next = node()
      if (step.startsWith(":")) at.any = next
      else at.fixed.set(step, next)
    }
    at = next
  }
  at.methods.set(route.method, route)
}

const collect = (at: Node, steps: ReadonlyArray<string>, index: number, found: Map<string, Route>): void => {
  if (index === steps.length) {
    for (const [method, route] of at.methods) if (!found.has(method)) found.set(method, route)
    return
  }
  const fixed = at.fixed.get(steps[index] ?? "")
  // a fixed step is never a parameter's value: `query` is no id
  if (fixed !== undefined) collect(fixed, steps, index + 1, found)
  else if (at.any !== undefined && steps[index] !== "") collect(at.any, steps, index + 1, found)
}

/** The routes of a path, without its query, by method; none where nothing is served. */
export const routesOf = (pathname: string): ReadonlyMap<string, Route> => {
  const found = new Map<string, Route>()
  if (pathname.startsWith("/")) collect(root, pathname.slice(1).split("/"), 0, found)
  return found
}

/** The methods that a path answers, as the header Allow has them. */
export const allowedOf = (found: ReadonlyMap<string, Route>): string => {
  const methods = new Set(found.keys())
  if (methods.has("GET")) methods.add("HEAD")
  methods.add("OPTIONS")
  return [...methods].sort().join(", ")
}
