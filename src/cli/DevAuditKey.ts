/**
 * The audit key of `velocity dev`: made on the first start, in the data folder. `audit.key` is its owner's alone;
 * `audit.pub` is what others verify with.
 */
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect } from "effect"
import { generateSignerKey, parseSignerKey } from "../domain/SignedNote.ts"
import { writeNew } from "../operator/source/NewFile.ts"
import { defaultDatabase } from "../postgres/Databases.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import { failed } from "./Settings.ts"

const read = (file: string): Promise<string | undefined> =>
  readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error
    return undefined
  })

/** Somebody else's that came meanwhile is as good. */
const writeOnce = (file: string, text: string, mode: number): Promise<void> =>
  writeNew(file, text, mode).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error
  })

/** The key's file. A new key is named after the installation and its database, so no two logs have one name. */
export const openDevAuditKey = Effect.fnUntraced(function* (data: string) {
  const file = join(data, "audit.key")
  const attempt = <A>(body: () => Promise<A>) =>
    Effect.tryPromise({
      try: body,
      catch: (cause) => failed(`the audit key ${file} cannot be used: ${(cause as Error).message}`)
    })
  if ((yield* attempt(() => read(file))) === undefined) {
    const sql = yield* OperatorSql
    const { rows } = yield* sql.query(statement("select id::text as id from platform.installation"))
    const name = `velocity.sh/${String(rows[0]?.id)}/${defaultDatabase}`
    const { signerKey } = yield* Effect.promise(() => generateSignerKey(name))
    yield* attempt(() => writeOnce(file, `${signerKey}\n`, 0o600))
  }
  const text = (yield* attempt(() => read(file))) ?? ""
  const signer = yield* Effect.promise(() => parseSignerKey(text.trim()))
  // a key that is none is told by the sealer, which reads it
  if (signer._tag === "Success") {
    yield* attempt(() => writeOnce(join(data, "audit.pub"), `${signer.success.verifier.text}\n`, 0o644))
  }
  return file
})
