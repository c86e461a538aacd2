/** A folder over time, by the clock of the test: what is deletion and what is not. */
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { describe, expect } from "vitest"
import * as FolderSource from "../../src/operator/source/FolderSource.ts"

const manifest = (name: string, more = "") =>
  `apiVersion: velocity.sh/v1\nkind: Organisation\nmetadata: { name: ${name} }\nspec: { org: ${name}${more} }\n`

const identity = (name: string) => `Organisation/velocity-system/${name}`

const folderOf = (files: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await mkdtemp(join(tmpdir(), "velocity-folder-"))
      for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
      return folder
    }),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
  )

const write = (folder: string, name: string, text: string) => Effect.promise(() => writeFile(join(folder, name), text))
const remove = (folder: string, name: string) => Effect.promise(() => rm(join(folder, name), { recursive: true }))

describe("a folder", () => {
  it.effect("is read whole, and again only when it says something else", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf({ "a.yaml": manifest("a"), ".hidden.yaml": "[", "b.yaml~": "[", "notes.md": "[" })
      const source = yield* FolderSource.make({ folder, known: [] })
      const first = yield* source.read
      expect([...(first?.resources.keys() ?? [])]).toEqual([identity("a")])
      expect(first?.problems).toEqual([])
      expect(yield* source.read).toBeUndefined()
      yield* write(folder, "a.yaml", `# a comment\n${manifest("a")}`)
      expect(yield* source.read).toBeUndefined()
      yield* write(folder, "a.yaml", manifest("a", ", displayName: A"))
      expect((yield* source.read)?.resources.get(identity("a"))?.resource.spec).toMatchObject({ displayName: "A" })
    })
  )

  it.effect("deletes after two seconds of absence, and not when the manifest comes back or moves", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf({ "a.yaml": manifest("a"), "b.yaml": manifest("b") })
      const source = yield* FolderSource.make({ folder, known: [] })
      yield* source.read
      yield* remove(folder, "b.yaml")
      expect(yield* source.read).toBeUndefined()
      yield* TestClock.adjust("1999 millis")
      expect(yield* source.read).toBeUndefined()
      yield* write(folder, "b.yaml", manifest("b"))
      expect(yield* source.read).toBeUndefined()
      yield* TestClock.adjust("10 seconds")
      yield* Effect.promise(() => rename(join(folder, "b.yaml"), join(folder, "c.yaml")))
      expect(yield* source.read).toBeUndefined()
      yield* TestClock.adjust("10 seconds")
      expect(yield* source.read).toBeUndefined()
      yield* remove(folder, "c.yaml")
      yield* source.read
      yield* TestClock.adjust("2 seconds")
      const gone = yield* source.read
      expect(gone?.deleted).toEqual([identity("b")])
      expect([...(gone?.resources.keys() ?? [])]).toEqual([identity("a")])
    })
  )

  it.effect("deletes nothing while a file is wrong, the folder is empty, or it is not there", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf({ "a.yaml": manifest("a"), "b.yaml": manifest("b") })
      const source = yield* FolderSource.make({ folder, known: [identity("from-the-database")] })
      yield* source.read
      yield* remove(folder, "b.yaml")
      yield* write(folder, "a.yaml", "kind: [")
      const wrong = yield* source.read
      expect(wrong?.spoiled.get(identity("a"))).toMatch(/^a\.yaml:/u)
      expect([...(wrong?.resources.keys() ?? [])].sort()).toEqual([identity("a"), identity("b")])
      yield* TestClock.adjust("1 minute")
      expect(yield* source.read).toBeUndefined()
      yield* remove(folder, "a.yaml")
      expect((yield* source.read)?.problems[0]?.message).toBe("there is no manifest in the folder")
      yield* TestClock.adjust("1 minute")
      expect(yield* source.read).toBeUndefined()
      yield* Effect.promise(() => rm(folder, { recursive: true }))
      expect((yield* source.read)?.problems[0]?.message).toMatch(/^the folder cannot be read/u)
      yield* TestClock.adjust("1 minute")
      expect(yield* source.read).toBeUndefined()
    })
  )

  it.effect("deletes what the database knows of it and it does not have", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf({ "a.yaml": manifest("a") })
      const source = yield* FolderSource.make({ folder, known: [identity("a"), identity("orphan")] })
      yield* source.read
      yield* TestClock.adjust("2 seconds")
      expect((yield* source.read)?.deleted).toEqual([identity("orphan")])
    })
  )
})
