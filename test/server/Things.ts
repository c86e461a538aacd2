/** The record types that tests over HTTP use: one with every kind of right, and one that refers to it. */

/** Who may do what with a thing. */
export const thingRoles = {
  reader: ["read"],
  clerk: ["create", "read"],
  editor: ["create", "read", "update"],
  store: ["read"],
  auditor: ["read", "history"],
  admin: ["create", "read", "update", "delete", "restore", "history"]
} as const
export type ThingRole = keyof typeof thingRoles

const roles = Object.entries(thingRoles).map(([role, operations]) => ({ role, operations }))

/** The spec of `{chain}/thing/v1`. */
export const thing = (chain: string) => {
  const [org, app, domain] = chain.split("/")
  return {
    org,
    app,
    domain,
    object: "thing",
    version: "v1",
    fields: [
      { name: "name", type: "string", required: true, unique: true, maxLength: 100, pattern: "^[^!]+$" },
      { name: "status", type: "enum", enum: ["draft", "done"], default: "draft", filterable: true },
      { name: "price", type: "number", precision: 38, scale: 4, min: "0", filterable: true },
      { name: "amount", type: "integer", filterable: true },
      { name: "note", type: "string" },
      { name: "store_id", type: "string", indexed: true },
      {
        name: "secret",
        type: "string",
        filterable: true,
        sensitivity: "personal",
        access: { write: ["editor", "admin", "clerk"] },
        mask: { strategy: "redact", unmaskedFor: ["admin"] }
      },
      { name: "hidden", type: "string", filterable: true, access: { read: ["admin"], write: ["admin"] } },
      { name: "data", type: "json" }
    ],
    validation: { rules: [{ rule: "self.status != 'done' || has(self.note)", message: "a done thing has a note" }] },
    access: {
      roles,
      rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
    }
  }
}

/** The spec of `{chain}/part/v1`, which refers to a thing. */
export const part = (chain: string) => {
  const [org, app, domain] = chain.split("/")
  return {
    org,
    app,
    domain,
    object: "part",
    version: "v1",
    fields: [
      { name: "label", type: "string", required: true, filterable: true },
      { name: "thing", type: "ref", ref: { object: "thing", version: "v1" }, filterable: true }
    ],
    concurrency: "required",
    audit: { requireReason: ["delete"] },
    access: { roles }
  }
}
