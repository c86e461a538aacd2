/** The audit key of `velocity dev`: made on the first start, in the data folder, its owner's alone. */
import { constants } from "node:fs"
import { link, open, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { Effect } from "effect"
import { generateSignerKey } from "../domain/SignedNote.ts"
import { defaultDatabase } from "../postgres/Databases.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import { failed } from "./Settings.ts"

export const auditKeyFile = (data: string): string => join(data, "audit.key")

/** A file whole or not at all, and never over one that is there. */
const writeOnce = async (file: string, text: string): Promise<void> => {
  const draft = `${file}.${crypto.randomUUID()}`
  try {
    const handle = await open(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error
    })
  } finally {
    await rm(draft, { force: true })
  }
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false
  )

/** The key's file. A new key is named after the installation and its database, so no two logs have one name. */
export const openDevAuditKey = Effect.fnUntraced(function* (data: string) {
  const file = auditKeyFile(data)
  if (yield* Effect.promise(() => exists(file))) return file
  const sql = yield* OperatorSql
  const { rows } = yield* sql.query(statement("select id::text as id from platform.installation"))
  const { signerKey } = yield* Effect.promise(() =>
    generateSignerKey(`velocity.sh/${String(rows[0]?.id)}/${defaultDatabase}`)
  )
  yield* Effect.tryPromise({
    try: () => writeOnce(file, `${signerKey}\n`),
    catch: (cause) => failed(`the audit key cannot be written to ${file}: ${(cause as Error).message}`)
  })
  return file
})
