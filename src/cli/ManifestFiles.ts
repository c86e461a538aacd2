/** Files of manifests that are named on the command line, and everything that is wrong with them before a database is asked. */
import { readFile } from "node:fs/promises"
import { Console, Effect } from "effect"
import { Flag } from "effect/cli"
import { admit } from "../domain/Admission.ts"
import type { ResourceOf } from "../domain/Resource.ts"
import { type Located, type ManifestProblem, parseManifests, renderProblem } from "../operator/state/Manifests.ts"
import { backfillFaults, ruleFaults } from "../records/type/Rules.ts"
import { failed } from "./Settings.ts"

export const fileFlag = Flag.File("file", { mustExist: true }).pipe(
  Flag.withAlias("f"),
  Flag.withDescription("A file of manifests"),
  Flag.withMetavar("FILE"),
  Flag.atLeast(1)
)

export type Definition = Located & { readonly resource: ResourceOf<"SchemaDefinition"> }

export const isDefinition = (one: Located): one is Definition => one.resource.kind === "SchemaDefinition"

/** What the files hold, and everything that is wrong with it before a database is asked. */
export const readFiles = Effect.fnUntraced(function* (files: ReadonlyArray<string>) {
  const problems: Array<ManifestProblem> = []
  const resources: Array<Located> = []
  const seen = new Map<string, string>()
  for (const file of files) {
    const text = yield* Effect.tryPromise({
      try: () => readFile(file, "utf8"),
      catch: (cause) => failed(`${file} cannot be read: ${(cause as Error).message}`, 2)
    })
    const parsed = parseManifests(file, text)
    problems.push(...parsed.problems)
    for (const one of parsed.resources) {
      const other = seen.get(one.identity)
      if (other !== undefined) {
        problems.push({ file, line: one.line, message: `${one.identity} is in ${other} too` })
        continue
      }
      seen.set(one.identity, `${file}:${one.line}`)
      resources.push(one)
      if (!isDefinition(one)) continue
      for (const { detail, pointer } of [
        ...admit(one.resource.spec),
        ...ruleFaults(one.resource.spec),
        ...backfillFaults(one.resource.spec)
      ]) {
        const at = `/spec${pointer}`
        problems.push({ file, ...one.at(at), identity: one.identity, message: `${at}: ${detail}` })
      }
    }
  }
  const order = (one: ManifestProblem) => [files.indexOf(one.file), one.line ?? 0, one.column ?? 0] as const
  problems.sort((a, b) => {
    const [x, y] = [order(a), order(b)]
    return x[0] - y[0] || x[1] - y[1] || x[2] - y[2]
  })
  return { problems, resources }
})

/** Ends with 1 where something is wrong, said on stderr. */
export const soundOnly = Effect.fnUntraced(function* (files: ReadonlyArray<string>) {
  const { problems, resources } = yield* readFiles(files)
  for (const problem of problems) yield* Console.error(renderProblem(problem))
  if (problems.length > 0) {
    return yield* failed(`${problems.length} ${problems.length === 1 ? "thing is" : "things are"} wrong; see above`)
  }
  return resources
})
