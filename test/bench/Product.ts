/** The statements that the product sends for a city, made by the product's own compiler, as scripts of pgbench. */
import { Result, Schema } from "effect"
import type { Caller } from "../../src/domain/Identity.ts"
import type { Operation } from "../../src/domain/Operation.ts"
import { ServedDefinition } from "../../src/domain/ServedDefinition.ts"
import { resolveShown } from "../../src/records/read/Include.ts"
import { Joins } from "../../src/records/read/Joins.ts"
import { orderOf, QueryFaults } from "../../src/records/read/QuerySql.ts"
import * as ReadSql from "../../src/records/read/ReadSql.ts"
import { enterFor } from "../../src/records/type/Entering.ts"
import { compile, type RecordType } from "../../src/records/type/RecordType.ts"
import { prepare } from "../../src/records/write/Prepared.ts"
import * as WriteSql from "../../src/records/write/WriteSql.ts"
import { asScript, type Script, scriptOf } from "./Script.ts"
import { query, type World } from "./World.ts"

export const atlas = "acme/geo/atlas"
export const cityPath = `${atlas}/city/v1`

/** The record types of the sample domain, as they are served now. */
export interface Product {
  readonly city: RecordType
  readonly country: RecordType
}

const caller: Caller = {
  identity: {
    actor: "development/dev",
    strategy: "development",
    subject: "dev",
    roles: [],
    attributes: {},
    expiresAt: 0
  },
  roles: ["cartographer", "visitor"],
  requestId: "r-bench",
  address: "127.0.0.1"
}

export const readProduct = async (world: World): Promise<Product> => {
  const rows = await query(
    world.ready.postgres.admin,
    `select id, path, chain, storage, storage_id as "storageId", generation::int4 as generation, pg_schema as "pgSchema",
       pg_table as "pgTable", serving as spec, foreign_keys as "foreignKeys"
     from platform.schema_defs where chain = $1`,
    [atlas]
  )
  const types = rows.map((row) => compile(Schema.decodeUnknownSync(ServedDefinition)(row)))
  const named = (object: string) => {
    const found = types.find((type) => type.def.spec.object === object)
    if (found === undefined) throw new Error(`no ${object} is served`)
    return found
  }
  return { city: named("city"), country: named("country") }
}

const around = ({ city, country }: Product) => ({
  peers: (path: string) => [city, country].find((type) => type.path === path),
  referring: () => []
})

const entering = ({ city }: Product, operation: Operation): Script["variables"] => {
  const { ctx, role } = enterFor(city, caller, operation)
  return { ctx, role }
}

const withEntering = (product: Product, operation: Operation, script: Script): Script => ({
  text: script.text,
  variables: { ...script.variables, ...entering(product, operation) }
})

/** GET of one city. */
export const getScript = (product: Product, file: string, id: string): Script =>
  withEntering(product, "read", scriptOf(file, { read: asScript("get", ReadSql.getSql(product.city, caller, id)) }))

/** GET of the first fifty. */
export const listScript = (product: Product, file: string): Script => {
  const { city } = product
  const projection = city.projection(caller.roles)
  const faults = new QueryFaults()
  const shown = resolveShown({ type: city, projection }, caller, { include: [] }, around(product), faults)
  const order = orderOf(city, projection, [], faults)
  const rows = { deleted: undefined, conditions: [] }
  const { joining } = new Joins(caller, shown)
  const statement = ReadSql.listSql(city, caller, rows, order, [], shown, 50, joining)
  return withEntering(product, "read", scriptOf(file, { read: asScript("list", statement) }))
}

/** A city of the bench; `geoname_id` is put in for each. */
export const benchCity = (country: string) => ({
  name: "Bench",
  country,
  feature_code: "PPL",
  population: 1000,
  longitude: 12.5,
  latitude: 41.9
})

/** A UUID that is this transaction's own. */
const drawnId = (part: string) => `('019a0000-0000-7000-${part}-' || lpad(to_hex(:n::int8), 12, '0'))`

/** POST of one city: row, history row and audit entry. */
export const createScript = (product: Product, file: string, country: string): Script => {
  const request = { headers: {}, method: "POST", target: "/", ...around(product) }
  const prepared = prepare(product.city, caller, "create", request, () => "")
  const { shape } = Result.getOrThrow(prepared)
  const document = JSON.stringify({ geoname_id: "?", ...benchCity(country) })
  const facts = { event: "", actor: caller.identity.actor, requestId: caller.requestId }
  const create = asScript("create", WriteSql.createSql(shape, "", document, facts), {
    1: "replace(:create_1, '\"?\"', (:n::int8)::text)",
    2: drawnId("8000"),
    3: drawnId("9000")
  })
  const audit = asScript("audit", WriteSql.auditSql("", ""), { 1: drawnId("8000"), 2: drawnId("9000") })
  const script = scriptOf(file, { create, audit })
  return withEntering(product, "create", { ...script, variables: { ...script.variables, create_1: document } })
}

/** The row alone. */
export const plainCreate = (product: Product, country: string): Script => {
  const script = scriptOf("create-plain.sql", { table: product.city.table })
  return withEntering(product, "create", { ...script, variables: { country } })
}
