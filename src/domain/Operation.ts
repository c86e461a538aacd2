/** What a role may be granted on a record type. */
export const operations = ["create", "read", "update", "delete", "restore", "history"] as const

export type Operation = (typeof operations)[number]

export const isOperation = (text: string): text is Operation => (operations as ReadonlyArray<string>).includes(text)
