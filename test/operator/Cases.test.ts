/**
 * Folders of manifests and what becomes of them. A case is a folder: `1`, `2`, … are states of the folder, one after the
 * other; `expected.txt` is what is said and served after each. `ORG` stands for an organisation of the test's own, `PLAN_HASH`
 * for the plan that waited in the state before.
 */
import { cp, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Scope } from "effect"
import { expect } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { renderProblem } from "../../src/operator/state/Manifests.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { configOf, freshDatabase, query } from "../support/Database.ts"
import { lookThrough, startReplica } from "../support/Replica.ts"

const cases = join(import.meta.dirname, "cases")

/** Makes a folder hold what a state says, all at once: the folder is a link. */
const become = async (link: string, state: string, org: string, plan = ""): Promise<void> => {
  // never the one that the link leads to, whose files would be read half written
  const folder = await mkdtemp(`${link}-`)
  await cp(state, folder, { recursive: true })
  for (const name of await readdir(folder)) {
    const text = await readFile(join(folder, name), "utf8")
    await writeFile(join(folder, name), text.replaceAll("ORG", org).replaceAll("PLAN_HASH", plan))
  }
  await symlink(folder, `${link}-next`)
  await rename(`${link}-next`, link)
}

const servedSql = `select path || ' ' || coalesce(state, '') || case when serving is null then '' else ' fields ' || (
    select string_agg(f ->> 'name', ',') from jsonb_array_elements(serving -> 'fields') f) end as line from platform.schema_defs
  union all select 'domain ' || chain || ' ' || coalesce(auth_strategy, 'without strategy') from platform.domains where chain <> 'platform'
  union all select 'binding ' || actor || ' ' || coalesce(chain, 'platform') || ' ' || array_to_string(roles, ',') from platform.role_bindings
  union all select 'key ' || actor || ' ' || coalesce(chain, 'platform') || ' ' || state || ' ' || coalesce(array_to_string(roles, ','), '')
    || coalesce(' ' || scopes::text, '') || ' in ' || secret_name from platform.api_keys
  order by 1`

const names = await readdir(cases)

layer(Layer.empty, { excludeTestServices: true })("the operator on a folder", (it) => {
  for (const name of names) {
    it.effect(name.replaceAll("-", " "), () =>
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const made = yield* Effect.acquireRelease(
          Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-case-"))),
          (one) => Effect.promise(() => rm(one, { recursive: true }))
        )
        const folder = join(made, "manifests")
        const states = (yield* Effect.promise(() => readdir(join(cases, name))))
          .filter((one) => /^\d$/u.test(one))
          .sort()
        const scope = yield* Scope.Scope
        const text: Array<string> = []
        const hide = (line: string) =>
          line
            .replaceAll(folder, "FOLDER")
            .replaceAll(org, "ORG")
            .replaceAll(/generation \d+/gu, "generation N")
            .replaceAll(/p[0-9a-f]{32}/gu, "HASH")
            .replaceAll(/by the key [0-9a-f]{16}/gu, "by the key FINGERPRINT")
        yield* Effect.promise(() => become(folder, join(cases, name, states[0] ?? "1"), org))
        const context = yield* Layer.buildWithScope(
          Operator.layer({ manifests: folder, quiet: Duration.zero, keys: join(made, "keys") }).pipe(
            Layer.provideMerge(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)),
            Layer.provide(ConfigProvider.layer(configOf(database)))
          ),
          scope
        )
        yield* startReplica(database)
        yield* Effect.gen(function* () {
          const status = yield* OperatorStatus
          yield* status.settled
          const describe = Effect.gen(function* () {
            const served = yield* query(database.operatorUrl, servedSql)
            const said = status.resources().flatMap(({ conditions, identity }) => {
              const shown = conditions.filter(
                (one) => one.type !== "Reconciling" && (one.type !== "Stalled" || one.status === "True")
              )
              return shown.map((one) => `${identity} ${one.type}=${one.status} ${one.reason}: ${one.message}`)
            })
            return [
              ...status.problems().map((one) => `problem ${renderProblem(one)}`),
              ...said.sort(),
              ...served.map((row) => `is ${row.line}`)
            ].map(hide)
          })
          let plan = ""
          for (const state of states) {
            for (const one of status.resources()) {
              const { hash } = (one.status.plan ?? {}) as { readonly hash?: string }
              plan = hash ?? plan
            }
            yield* Effect.promise(() => become(folder, join(cases, name, state), org, plan))
            yield* lookThrough(status)
            const lines = yield* describe
            text.push(`== ${state}`, ...lines)
          }
          const violations = (yield* IsolationCheck.check()).map(IsolationCheck.render)
          expect(violations).toEqual([])
        }).pipe(Effect.provide(context))
        yield* Effect.promise(() =>
          expect(`${text.join("\n")}\n`).toMatchFileSnapshot(join(cases, name, "expected.txt"))
        )
      })
    )
  }
})
