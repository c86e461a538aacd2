/**
 * Resources from a folder of manifests that is watched.
 *
 * Level-based: whatever happened, the whole folder is read again and compared with what was known; events of the file
 * system only say when, and a look is taken every few seconds without them. A resource is deleted when its manifest is
 * absent from a complete reading and stays so for two seconds. A reading is complete when every file could be read and
 * parsed; an empty folder, or none, is an error and no deletion. A manifest that went bad keeps its last good version.
 */
import { type FSWatcher, watch } from "node:fs"
import { mkdir, readdir, readFile, stat } from "node:fs/promises"
import { join, relative } from "node:path"
import { Clock, Duration, Effect, Queue } from "effect"
import { type Located, type ManifestProblem, parseManifests } from "../state/Manifests.ts"
import { type Delivered, type KeyDelivery, type Reading, type Source, SourceFailure } from "../state/Source.ts"
import { writeNew } from "./NewFile.ts"

/** Files larger than that are no manifests (a resource may have 1.5 MiB in etcd). */
const maxFileBytes = 2 * 1024 * 1024
const maxFiles = 10_000
/** How long after an event the folder is looked at. */
const settling = Duration.millis(50)

export interface FolderOptions {
  readonly folder: string
  /** Identities that the database knows from this source: what is absent among them is deleted. */
  readonly known: ReadonlyArray<string>
  /** How long a manifest must be absent (2 s). */
  readonly quiet?: Duration.Duration | undefined
  /** How often to look without being told (5 s). */
  readonly every?: Duration.Duration | undefined
  /** Where minted keys are put, a file for each; undefined: nowhere. */
  readonly keys?: string | undefined
}

const isManifest = (name: string): boolean => /\.(ya?ml|json)$/iu.test(name)

/** The manifests below a folder, hidden ones and editors' leavings aside; links are followed. */
const filesOf = async (folder: string): Promise<ReadonlyArray<string>> => {
  const found: Array<string> = []
  const walk = async (at: string, depth: number): Promise<void> => {
    for (const name of (await readdir(at)).sort()) {
      if (name.startsWith(".") || name.endsWith("~") || depth > 16) continue
      const path = join(at, name)
      const kind = await stat(path)
      if (kind.isDirectory()) await walk(path, depth + 1)
      else if (kind.isFile() && isManifest(name)) found.push(path)
      if (found.length > maxFiles) throw new Error(`more than ${maxFiles} manifests`)
    }
  }
  await walk(folder, 0)
  return found
}

interface Look {
  readonly located: ReadonlyArray<Located>
  readonly problems: ReadonlyArray<ManifestProblem>
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Reads all files once. */
const look = async (folder: string): Promise<Look> => {
  let files: ReadonlyArray<string>
  try {
    files = await filesOf(folder)
  } catch (error) {
    return { located: [], problems: [{ file: folder, message: `the folder cannot be read: ${messageOf(error)}` }] }
  }
  const located: Array<Located> = []
  const problems: Array<ManifestProblem> = []
  for (const path of files) {
    const file = relative(folder, path)
    try {
      if ((await stat(path)).size > maxFileBytes) throw new Error(`it has more than ${maxFileBytes} bytes`)
      const parsed = parseManifests(file, await readFile(path, "utf8"))
      located.push(...parsed.resources)
      problems.push(...parsed.problems)
    } catch (error) {
      problems.push({ file, message: `it cannot be read: ${messageOf(error)}` })
    }
  }
  if (located.length === 0 && problems.length === 0) {
    problems.push({ file: folder, message: "there is no manifest in the folder" })
  }
  return { located, problems }
}

/** Resources by identity; those that stand twice are refused in both places. */
const distinct = ({
  located,
  problems
}: Look): { readonly good: Map<string, Located>; readonly problems: Array<ManifestProblem> } => {
  const all = new Map<string, Array<Located>>()
  for (const one of located) all.set(one.identity, [...(all.get(one.identity) ?? []), one])
  const good = new Map<string, Located>()
  const wrong = [...problems]
  for (const [identity, those] of all) {
    const [first] = those
    if (first !== undefined && those.length === 1) {
      good.set(identity, first)
      continue
    }
    for (const { file, line } of those) {
      const others = those
        .filter((one) => one.file !== file || one.line !== line)
        .map((one) => `${one.file}:${one.line}`)
      wrong.push({ file, line, identity, message: `${identity} stands in ${others.join(", ")} too` })
    }
  }
  return { good, problems: wrong }
}

/** What is wrong, by resource: of a file that cannot be parsed at all, those that were in it when it could. */
const spoiledBy = (
  problems: ReadonlyArray<ManifestProblem>,
  good: ReadonlyMap<string, Located>,
  lastGood: ReadonlyMap<string, Located>
): ReadonlyMap<string, string> => {
  const found = new Map<string, string>()
  for (const { file, identity, line, message } of problems) {
    const text = `${file}${line === undefined ? "" : `:${line}`}: ${message}`
    const about =
      identity !== undefined
        ? [identity]
        : [...lastGood.values()]
            .filter((one) => one.file === file && !good.has(one.identity))
            .map((one) => one.identity)
    for (const one of about) {
      const said = found.get(one)
      found.set(one, said === undefined ? text : `${said}; ${text}`)
    }
  }
  return found
}

/** What changed since; nothing where all of it is the same. */
const isSame = (a: Reading | undefined, b: Reading): boolean =>
  a !== undefined &&
  b.deleted.length === 0 &&
  JSON.stringify(a.problems) === JSON.stringify(b.problems) &&
  a.resources.size === b.resources.size &&
  [...b.resources].every(([identity, { resource }]) => {
    const before = a.resources.get(identity)
    return before !== undefined && JSON.stringify(before.resource) === JSON.stringify(resource)
  })

/** Keys as files that their owner alone can read, whole or not at all. */
const keyFiles = (folder: string): KeyDelivery => ({
  place: "the file",
  put: (_resource, { key, secretName }) =>
    Effect.tryPromise({
      try: async (): Promise<Delivered> => {
        await mkdir(folder, { recursive: true, mode: 0o700 })
        try {
          await writeNew(join(folder, secretName), `${key}\n`, 0o600)
        } catch (cause) {
          if ((cause as NodeJS.ErrnoException).code === "EEXIST") return { _tag: "Taken" }
          throw cause
        }
        return { _tag: "Delivered" }
      },
      catch: (cause) => new SourceFailure({ message: `the key was not written: ${messageOf(cause)}` })
    })
})

/** Watches a folder until the scope closes. */
export const make = Effect.fnUntraced(function* ({ every, folder, keys, known, quiet }: FolderOptions) {
  const absence = Duration.toMillis(quiet ?? Duration.seconds(2))
  const period = Duration.toMillis(every ?? Duration.seconds(5))
  const nudges = yield* Queue.sliding<void>(1)
  let watcher: FSWatcher | undefined
  const watching = Effect.sync(() => {
    if (watcher !== undefined) return
    try {
      watcher = watch(folder, { recursive: true, persistent: false }, () => {
        Queue.offerUnsafe(nudges, undefined)
      })
      watcher.on("error", () => {
        watcher?.close()
        watcher = undefined
      })
    } catch {
      // not there, or not to be watched: the next look tries again
    }
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => watcher?.close()))

  const lastGood = new Map<string, Located>()
  const remembered = new Set(known)
  const missingSince = new Map<string, number>()
  let before: Reading | undefined

  const read: Source["read"] = Effect.gen(function* () {
    yield* watching
    const { good, problems } = distinct(yield* Effect.promise(() => look(folder)))
    const now = yield* Clock.currentTimeMillis
    const deleted: Array<string> = []
    for (const [identity, one] of good) {
      lastGood.set(identity, one)
      remembered.add(identity)
      missingSince.delete(identity)
    }
    const spoiled = spoiledBy(problems, good, lastGood)
    for (const identity of spoiled.keys()) remembered.add(identity)
    const isComplete = problems.length === 0
    for (const identity of remembered) {
      if (good.has(identity)) continue
      if (!isComplete) {
        missingSince.delete(identity)
        continue
      }
      const since = missingSince.get(identity) ?? now
      missingSince.set(identity, since)
      if (now - since >= absence) deleted.push(identity)
    }
    for (const identity of deleted) {
      remembered.delete(identity)
      missingSince.delete(identity)
      lastGood.delete(identity)
    }
    const reading: Reading = { resources: new Map(lastGood), problems, spoiled, deleted }
    if (isSame(before, reading)) return undefined
    before = reading
    return reading
  })

  const wait: Source["wait"] = Effect.gen(function* () {
    const due = missingSince.size > 0 ? Math.min(absence, period) : period
    const nudged = yield* Effect.timeoutOption(Queue.take(nudges), Duration.millis(due))
    if (nudged._tag === "None") return
    // an editor writes in several steps
    yield* Effect.sleep(settling)
    yield* Queue.clear(nudges)
  })

  return { read, wait, delivery: keys === undefined ? undefined : keyFiles(keys) } satisfies Source
})
