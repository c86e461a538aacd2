/**
 * Writes what is generated: the catalogue's parts of `docs/architecture/`, from a database that it starts and migrates,
 * `docs/problems.md`, from the catalogue of problems, and `k8s/crds/`, from the schemas of `src/domain/`.
 * `--check` writes nothing and fails where a file would change.
 */
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { problemsMarkdown } from "../src/domain/Problem.ts"
import { customResourceFiles, customResourceKustomization } from "../src/kubernetes/CustomResources.ts"
import * as CatalogueDocs from "../src/postgres/CatalogueDocs.ts"
import * as EmbeddedServer from "../src/postgres/EmbeddedServer.ts"
import * as Migrations from "../src/postgres/Migrations.ts"

const docs = Path.resolve(import.meta.dirname, "..", "docs")
const pages = Path.join(docs, "architecture")
const crds = Path.resolve(import.meta.dirname, "..", "k8s", "crds")
const check = process.argv.includes("--check")

/** The generated parts of a fresh database. */
const blocks = Effect.scoped(
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const made = await Fs.mkdtemp(Path.join(Os.tmpdir(), "velocity-generate-"))
        // user `postgres` must be able to enter it when we are root
        await Fs.chmod(made, 0o755)
        return made
      }),
      (made) => Effect.promise(() => Fs.rm(made, { recursive: true, force: true }))
    )
    const server = yield* EmbeddedServer.make({ dataDir: folder, durable: false })
    const url = Redacted.make(server.superuser.href)
    yield* Migrations.run({ url })
    const files = yield* Effect.promise(() => Migrations.readMigrations(Migrations.migrationsFolder()))
    return { ...(yield* CatalogueDocs.read(url)), ...CatalogueDocs.ofFiles(files) }
  })
)

const program = Effect.gen(function* () {
  const made = yield* blocks
  const stale: Array<string> = []
  for (const name of (yield* Effect.promise(() => Fs.readdir(pages))).sort()) {
    const file = Path.join(pages, name)
    const before = yield* Effect.promise(() => Fs.readFile(file, "utf8"))
    const after = CatalogueDocs.fill(before, made)
    if (after === before) continue
    stale.push(Path.join("docs", "architecture", name))
    if (!check) yield* Effect.promise(() => Fs.writeFile(file, after))
  }
  const problemsPage = Path.join(docs, "problems.md")
  const written = yield* Effect.promise(() => Fs.readFile(problemsPage, "utf8").catch(() => ""))
  if (written !== problemsMarkdown()) {
    stale.push(Path.join("docs", "problems.md"))
    if (!check) yield* Effect.promise(() => Fs.writeFile(problemsPage, problemsMarkdown()))
  }
  const kinds = new Map([...customResourceFiles(), customResourceKustomization()])
  yield* Effect.promise(() => Fs.mkdir(crds, { recursive: true }))
  for (const [name, made] of kinds) {
    const before = yield* Effect.promise(() => Fs.readFile(Path.join(crds, name), "utf8").catch(() => ""))
    if (before === made) continue
    stale.push(Path.join("k8s", "crds", name))
    if (!check) yield* Effect.promise(() => Fs.writeFile(Path.join(crds, name), made))
  }
  for (const name of (yield* Effect.promise(() => Fs.readdir(crds))).filter((one) => !kinds.has(one))) {
    stale.push(Path.join("k8s", "crds", name))
    if (!check) yield* Effect.promise(() => Fs.rm(Path.join(crds, name)))
  }
  return stale
})

const stale = await Effect.runPromise(program)
for (const name of stale) console.log(check ? `${name} is not as generated: npm run generate` : `wrote ${name}`)
if (check && stale.length > 0) process.exitCode = 1
