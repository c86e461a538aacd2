/**
 * `velocity audit verify-proof`: whether an entry stands in the log that a key signed, or a record was as it says. Reads files and nothing else: no
 * database, no network, no settings.
 */
import { readFile, stat } from "node:fs/promises"
import { Console, Effect, Option, Result } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { toBase64 } from "../domain/Base64.ts"
import { parseWitnessKey } from "../domain/Cosignature.ts"
import {
  type EntryProofDocument,
  EntryProofFault,
  type ProvedEntry,
  parseEntry,
  parseEntryProof,
  verifyEntryProof
} from "../domain/EntryProof.ts"
import { keyLabel, type NoteKeyFault, type NoteVerifier, parseVerifierKey } from "../domain/NoteKey.ts"
import { isRecordProof, type ProvedRecord, parseRecordProof, verifyRecordProof } from "../domain/RecordProof.ts"
import { tlogProofHeader } from "../domain/TlogProof.ts"
import { document, type Format, outputFlag, printable } from "./Output.ts"
import { failed } from "./Settings.ts"

/** Bytes of a proof, an entry or a file of keys that are read. */
const maxFileLength = 16 * 1024 * 1024
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The file's text, to the byte: a signature is over each of them. */
const readText = (path: string) =>
  Effect.tryPromise({
    try: async () => {
      const { size } = await stat(path)
      if (size > maxFileLength) throw new Error(`it has more than ${maxFileLength} bytes`)
      return utf8.decode(await readFile(path))
    },
    catch: (cause) => failed(`cannot read ${path}: ${(cause as Error).message}`, 2)
  })

/** `KEY`, or `@FILE` with a key a line. What is refused is never repeated: it may be the secret one, by mistake. */
export const keysOf = Effect.fnUntraced(function* (
  texts: ReadonlyArray<string>,
  parse: (text: string) => Result.Result<NoteVerifier, NoteKeyFault>,
  flag = "--key"
) {
  const keys: Array<NoteVerifier> = []
  for (const text of texts) {
    const place = text.startsWith("@") ? text.slice(1) : flag
    const lines = text.startsWith("@") ? (yield* readText(text.slice(1))).split(/\r?\n/u) : [text]
    const written = lines.map((line) => line.trim()).filter((line) => line !== "")
    if (written.length === 0) return yield* failed(`${place} holds no key`, 2)
    for (const one of written) {
      const key = parse(one)
      if (Result.isFailure(key)) return yield* failed(printable(`${place}: ${key.failure.message}`), 2)
      keys.push(key.success)
    }
  }
  return keys
})

/** The document, or a `tlog-proof` and the entry that came apart from it. */
const documentOf = (text: string, entry: string | undefined): Result.Result<EntryProofDocument, EntryProofFault> => {
  const isBare = text.startsWith(`${tlogProofHeader}\n`)
  if (isBare && entry !== undefined) return Result.map(parseEntry(entry), (read) => ({ entry: read, proof: text }))
  if (!isBare && entry === undefined) return parseEntryProof(text)
  const message = isBare
    ? "This is a tlog-proof without the entry that it is about: say --entry FILE."
    : "The file has its entry in it: say --entry only beside a tlog-proof."
  return Result.fail(new EntryProofFault({ step: "document", verdict: "unknown", message }))
}

const instant = (seconds: number): string => {
  const time = new Date(seconds * 1000)
  return Number.isNaN(time.getTime()) ? `${seconds} s` : time.toISOString()
}

const told = ({ checkpoint, entry, index, signers, witnesses }: ProvedEntry): string => {
  const facts: ReadonlyArray<readonly [string, string]> = [
    ["chain", entry.chain],
    ["lane", String(entry.lane)],
    ["seq", entry.seq],
    ["time", entry.occurred_at],
    ["act", `${entry.action} (${entry.outcome}) by ${entry.actor}`],
    ["signed by", signers.map(keyLabel).join(", ")],
    ...witnesses.map(({ time, witness }) => ["cosigned by", `${keyLabel(witness)} at ${instant(time)}`] as const)
  ]
  return [
    `proved: entry ${entry.id} stands at ${index} of the ${checkpoint.size} entries of ${checkpoint.origin}`,
    ...facts.map(([name, value]) => `  ${name.padEnd(12)}${value}`)
  ]
    .map(printable)
    .join("\n")
}

const answered = ({ checkpoint, entry, hash, index, signers, witnesses }: ProvedEntry) => ({
  proved: true,
  chain: entry.chain,
  lane: entry.lane,
  seq: entry.seq,
  occurred_at: entry.occurred_at,
  id: entry.id,
  hash,
  index,
  origin: checkpoint.origin,
  tree_size: checkpoint.size,
  root: toBase64(checkpoint.root),
  signers: signers.map(keyLabel),
  witnesses: witnesses.map(({ time, witness }) => ({ witness: keyLabel(witness), time }))
})

const toldOfRecord = ({ entry, hidden, record, values }: ProvedRecord): string =>
  [
    `proved: ${record.path} ${record.entity_id} was this after its ${record.op} to version ${record.version}`,
    ...[...values].map(([name, value]) => `  ${name}: ${value}`),
    ...(hidden === 0 ? [] : [`  and ${hidden} ${hidden === 1 ? "field that is" : "fields that are"} not shown`])
  ]
    .map(printable)
    .concat(told(entry))
    .join("\n")

const answeredOfRecord = ({ entry, event, hidden, record, values }: ProvedRecord) => ({
  ...answered(entry),
  record: { ...record, event, values: Object.fromEntries(values), hidden }
})

interface Fault {
  readonly message: string
  readonly step: string
  readonly verdict: "refuted" | "unknown"
}

const reported = Effect.fnUntraced(function* <A>(
  format: Format,
  verdict: Result.Result<A, Fault>,
  say: (proved: A) => string,
  answer: (proved: A) => object
) {
  if (Result.isSuccess(verdict)) {
    const proved = verdict.success
    return yield* Console.log(format === "table" ? say(proved) : document(format, answer(proved)))
  }
  const { message, step, verdict: kind } = verdict.failure
  if (format !== "table") yield* Console.log(document(format, { proved: false, verdict: kind, step, message }))
  const said = kind === "refuted" ? "refuted" : "could not tell"
  return yield* failed(printable(`${said} (${step}): ${message}`), kind === "refuted" ? 1 : 2)
})

const keyFlag = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar("KEY|@FILE"))

export const verifyProof = Command.make(
  "verify-proof",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription(
        "What GET /api/platform/audit/{id}/proof or GET …/{id}/proof of a record answered, or a C2SP tlog-proof"
      )
    ),
    key: keyFlag("key", "A verifier key of the log, or @FILE with one a line; may be said again").pipe(Flag.atLeast(1)),
    witness: keyFlag("witness", "A witness's key, which must have cosigned; may be said again").pipe(Flag.atLeast(0)),
    entry: Flag.String("entry").pipe(
      Flag.withDescription("Beside a tlog-proof: the entry, one of those that velocity audit list -o json prints"),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    output: outputFlag
  },
  Effect.fnUntraced(function* ({ entry, file, key, output, witness }) {
    const verifiers = yield* keysOf(key, parseVerifierKey)
    const witnesses = yield* keysOf(witness, parseWitnessKey, "--witness")
    const text = yield* readText(file)
    const judged = <A>(verify: () => Promise<A>) =>
      Effect.tryPromise({
        try: verify,
        catch: (cause) => failed(`could not tell: ${(cause as Error).message}`, 2)
      })
    const whole = parseRecordProof(text)
    if (Result.isSuccess(whole) && isRecordProof(whole.success) && Option.isNone(entry)) {
      const verdict = yield* judged(() => verifyRecordProof(whole.success, verifiers, { witnesses }))
      return yield* reported(output, verdict, toldOfRecord, answeredOfRecord)
    }
    const read = documentOf(text, Option.isSome(entry) ? yield* readText(entry.value) : undefined)
    if (Result.isFailure(read)) return yield* reported(output, Result.fail(read.failure), told, answered)
    const verdict = yield* judged(() => verifyEntryProof(read.success, verifiers, { witnesses }))
    yield* reported(output, verdict, told, answered)
  })
).pipe(
  Command.withDescription("Check the proof of one entry or record, offline; 0 proved, 1 refuted, 2 could not tell"),
  Command.withExamples([
    { command: "velocity audit verify-proof proof.json --key @verifier.key", description: "One entry" },
    {
      command: "velocity audit verify-proof proof.json --key @old.key --key @new.key",
      description: "While keys rotate: either will do"
    }
  ])
)
