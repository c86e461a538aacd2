/**
 * A month as files: `{month}.ndjson`, a row a line with every column, and `{month}.manifest.json`, which names its hash,
 * its rows and, for the audit log, the first and last entry of each lane. Whoever has both can verify the month without a
 * database: `readBack` is how.
 *
 * The manifest is made from what was read back from the disk, each entry's hash computed anew and each lane followed from
 * entry to entry; only then is it put on record, without which the database lets no month go that was to be exported.
 */
import { createHash, type Hash } from "node:crypto"
import { createReadStream } from "node:fs"
import { mkdir, open, readFile, rename } from "node:fs/promises"
import { join } from "node:path"
import { Data, Effect } from "effect"
import { type AuditEntry, entryHash } from "../../domain/AuditEntry.ts"
import { eventHash, eventHead } from "../../domain/EventHash.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, type Superseded } from "../state/Fence.ts"

/** Rows of one page; a page is one statement. */
const pageRows = 5_000

/** What was read back is not what was written, or not sound; the month stays. */
export class ExportFailed extends Data.TaggedError("ExportFailed")<{ readonly message: string }> {}

/** The first and last entry of a lane, as it was sealed. Numbers in digits, hashes hexadecimal. */
export interface ExportedLane {
  readonly chain: string
  readonly lane: number
  readonly first_seq: string
  readonly first_hash: string
  readonly last_seq: string
  readonly last_hash: string
}

export interface Manifest {
  readonly format: "velocity/export/v1"
  readonly partition: string
  readonly rows: number
  /** Of the file's bytes. */
  readonly sha256: string
  /** Of the audit log; none of history. */
  readonly lanes: ReadonlyArray<ExportedLane>
}

interface ExportedEvent {
  readonly storage_id: number
  readonly entity_id: string
  readonly version: number
  readonly op: string
  /** The text of each field's value; null where it was erased. */
  readonly state: Readonly<Record<string, string>> | null
  readonly salt: string | null
  readonly hash: string
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** Follows the lanes of a file of the audit log; throws at the first entry that is not as its hash says. */
class Lanes {
  readonly found = new Map<string, { -readonly [K in keyof ExportedLane]: ExportedLane[K] }>()

  readonly take = (entry: AuditEntry & { readonly hash: string }): void => {
    const at = `${entry.chain}, lane ${entry.lane}, seq ${entry.seq}`
    if (hex(entryHash(entry)) !== entry.hash) throw new Error(`${at}: its hash is another`)
    const key = `${entry.chain} ${entry.lane}`
    const last = this.found.get(key)
    if (last === undefined) {
      const { chain, hash, lane, seq } = entry
      this.found.set(key, { chain, lane, first_seq: seq, first_hash: hash, last_seq: seq, last_hash: hash })
      return
    }
    if (BigInt(last.last_seq) + 1n !== BigInt(entry.seq)) throw new Error(`${at}: a gap after ${last.last_seq}`)
    if (last.last_hash !== entry.prev_hash) throw new Error(`${at}: it does not follow the entry before it`)
    last.last_seq = entry.seq
    last.last_hash = entry.hash
  }
}

const judgeEvent = (event: ExportedEvent): void => {
  if (event.state === null || event.salt === null) return
  const head = eventHead(event.storage_id, event.entity_id, event.version, event.op)
  const computed = eventHash(Buffer.from(event.salt, "hex"), head, new Map(Object.entries(event.state)))
  if (hex(computed) !== event.hash)
    throw new Error(`version ${event.version} of ${event.entity_id}: its hash is another`)
}

/** The lines of a file; `readline` would also end them at U+2028, which JSON does not escape. */
const linesOf = async function* (file: string, digest: Hash): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true })
  let rest = ""
  for await (const chunk of createReadStream(file)) {
    digest.update(chunk as Buffer)
    const parts = (rest + decoder.decode(chunk as Buffer, { stream: true })).split("\n")
    rest = parts.pop() ?? ""
    yield* parts
  }
  if (rest + decoder.decode() !== "") throw new Error("it ends within a line")
}

/** Reads an exported month from its file and judges it; throws on what is not sound. Needs no database. */
export const readBack = async (file: string, partition: string): Promise<Manifest> => {
  const lanes = new Lanes()
  const isLog = partition.startsWith("audit_log_")
  const digest = createHash("sha256")
  let rows = 0
  for await (const line of linesOf(file, digest)) {
    const row: unknown = JSON.parse(line)
    if (isLog) lanes.take(row as AuditEntry & { readonly hash: string })
    else judgeEvent(row as ExportedEvent)
    rows += 1
  }
  return {
    format: "velocity/export/v1",
    partition,
    rows,
    sha256: digest.digest("hex"),
    lanes: [...lanes.found.values()]
  }
}

const attempt = <A>(what: string, f: () => Promise<A>): Effect.Effect<A, ExportFailed> =>
  Effect.tryPromise({ try: f, catch: (cause) => new ExportFailed({ message: `${what}: ${(cause as Error).message}` }) })

/** Writes the rows page by page; answers the hash of what was written. */
const writeRows = (folder: string, name: string, file: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const fence = yield* Fence
      const handle = yield* Effect.acquireRelease(
        attempt(`${file} cannot be written`, async () => {
          await mkdir(folder, { recursive: true })
          return await open(file, "w", 0o600)
        }),
        (opened) => Effect.promise(() => opened.close())
      )
      const digest: Hash = createHash("sha256")
      for (let place: string | null = null; ; ) {
        const { rows } = yield* fence.read((tx) =>
          tx.query(
            statement("select line, place::text as place from platform.partition_export($1, $2::jsonb, $3::int4)", [
              name,
              place,
              pageRows
            ])
          )
        )
        const text = rows.map((row) => `${row.line}\n`).join("")
        digest.update(text)
        yield* attempt(`${file} cannot be written`, () => handle.appendFile(text))
        const last = rows.at(-1)
        if (last === undefined || rows.length < pageRows) break
        place = String(last.place)
      }
      yield* attempt(`${file} cannot be written`, () => handle.sync())
      return digest.digest("hex")
    })
  )

/** A rename is on the disk when its folder is. */
const settle = async (folder: string): Promise<void> => {
  const handle = await open(folder, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Exports a month into a folder, reads it back and puts its manifest on record. What an earlier attempt left is written
 * over. Fails with `ExportFailed` where the disk refuses or what was read back is not sound.
 */
export const exportMonth = (
  folder: string,
  name: string
): Effect.Effect<Manifest, ExportFailed | DatabaseFailure | Superseded, Fence> =>
  Effect.gen(function* () {
    const fence = yield* Fence
    const file = join(folder, `${name}.ndjson`)
    const written = yield* writeRows(folder, name, `${file}.part`)
    const manifest = yield* attempt(`${file}.part, read back, is not sound`, () => readBack(`${file}.part`, name))
    if (manifest.sha256 !== written) {
      return yield* new ExportFailed({ message: `${file}.part, read back, is not what was written` })
    }
    const text = `${JSON.stringify(manifest, undefined, 2)}\n`
    const said = join(folder, `${name}.manifest.json`)
    const kept = yield* attempt(`${said} cannot be written`, async () => {
      const handle = await open(`${said}.part`, "w", 0o600)
      try {
        await handle.writeFile(text)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(`${file}.part`, file)
      await rename(`${said}.part`, said)
      await settle(folder)
      return await readFile(said, "utf8")
    })
    if (kept !== text) return yield* new ExportFailed({ message: `${said}, read back, is not what was written` })
    yield* fence.transaction((tx) =>
      tx.query(statement("select encode(platform.partition_exported($1, $2), 'hex') as hash", [name, text]))
    )
    return manifest
  })
