/** What a role may be granted on a record type. */
export const operations = ["create", "read", "update", "delete", "restore", "history"] as const

export type Operation = (typeof operations)[number]
