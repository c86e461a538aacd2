/** Definitions for tests of records, decoded as the operator decodes them. */
import * as Schema from "effect/Schema"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"

/** A decoded definition: `thing/v1`, with the roles that product.md's sample has, unless something else is said. */
export const specOf = (partial: {
  readonly fields: ReadonlyArray<unknown>
  readonly [key: string]: unknown
}): SchemaDefinitionSpec =>
  Schema.decodeUnknownSync(SchemaDefinitionSpec)({
    org: "acme",
    app: "shop",
    domain: "eu",
    object: "thing",
    version: "v1",
    access: {
      roles: [
        { role: "buyer", operations: ["create", "read", "update"] },
        { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] }
      ]
    },
    ...partial
  })
