/**
 * `velocity audit checkpoint|prove|restore-note`: what leaves the database as evidence, through the API; and the note of a
 * restore, which needs the operator's database and the audit key.
 */
import { readFile, stat } from "node:fs/promises"
import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { isUuid } from "../domain/Uuid.ts"
import { readAuditKeys } from "../operator/evidence/AuditKeys.ts"
import { noteRestore } from "../operator/evidence/RestoreNote.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { send } from "./ApiCall.ts"
import { apiFlag, dataFlag, failed, targetOf, tokenFlag } from "./Settings.ts"
import { startFailure } from "./StartFailure.ts"

const shared = { data: dataFlag, api: apiFlag, token: tokenFlag }
const roles = ["platform-auditor"]
/** A checkpoint is a few hundred bytes, with all its witnesses a few thousand. */
const maxCheckpointBytes = 1_000_000

/** Prints a body as it came: a signature is over its every byte. */
const printBody = Effect.fnUntraced(function* (response: Response) {
  const text = yield* Effect.promise(() => response.text())
  yield* Effect.sync(() => process.stdout.write(text))
})

export const checkpoint = Command.make(
  "checkpoint",
  {
    ...shared,
    size: Flag.Int("size").pipe(
      Flag.withDescription("The one of exactly so many leaves; the newest unless said"),
      Flag.filter(
        (size) => size >= 0,
        () => "a number of leaves"
      ),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles })
    const params = Option.isSome(options.size) ? [["size", String(options.size.value)] as const] : []
    yield* printBody(yield* send(target, { path: "/api/platform/audit/checkpoint", params }))
  })
).pipe(
  Command.withDescription("Print the signed head of the log's tree, to be kept where nobody here can change it"),
  Command.withExamples([{ command: "velocity audit checkpoint > checkpoint", description: "The newest" }])
)

export const prove = Command.make(
  "prove",
  {
    ...shared,
    id: Argument.String("entry-id").pipe(
      Argument.withDescription("The id of an entry, as velocity audit list -o json prints it"),
      Argument.filter(isUuid, () => "a UUID in lower case")
    )
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles })
    yield* printBody(yield* send(target, { path: `/api/platform/audit/${options.id}/proof` }))
  })
).pipe(
  Command.withDescription("Print an entry with the proof that it is in the signed log"),
  Command.withExamples([
    {
      command: "velocity audit prove 01234567-89ab-7cde-8f01-23456789abcd > proof.json",
      description: "For somebody who has the verifier key: velocity audit verify-proof proof.json --key KEY"
    }
  ])
)

/** A checkpoint's file, as it is. */
export const readCheckpoint = (file: string) =>
  Effect.tryPromise({
    try: async () => {
      if ((await stat(file)).size > maxCheckpointBytes) throw new Error("it is too large for a checkpoint")
      return await readFile(file, "utf8")
    },
    catch: (cause) => failed(`cannot read ${file}: ${(cause as Error).message}`, 2)
  })

export const restoreNote = Command.make(
  "restore-note",
  {
    checkpoint: Flag.String("checkpoint").pipe(
      Flag.withDescription("The newest checkpoint that is outside, which this database does not extend"),
      Flag.withMetavar("FILE")
    ),
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why, on one line: signed, published, and never taken back"),
      Flag.withMetavar("TEXT")
    )
  },
  Effect.fnUntraced(function* (options) {
    const keys = yield* readAuditKeys.pipe(
      Effect.mapError((error) => (error._tag === "ConfigError" ? startFailure(error) : failed(error.message, 2)))
    )
    if (keys === undefined)
      return yield* failed("set VELOCITY_AUDIT_KEY_FILE to the log's key, which signs the note", 2)
    const note = yield* readCheckpoint(options.checkpoint)
    const kept = yield* noteRestore(keys, { source: options.checkpoint, note }, options.reason).pipe(
      Effect.provide(OperatorSql.layer),
      Effect.mapError((error) => (error._tag === "ConfigError" ? startFailure(error) : failed(error.message)))
    )
    yield* Console.error(
      `noted: the log goes on as ${kept.origin}, from ${kept.size} leaves; witnesses must be told the new origin. The operator seals again within a minute.`
    )
    yield* Effect.sync(() => process.stdout.write(kept.note))
  })
).pipe(
  Command.withDescription("Say, signed, that the log was restored from an older copy, and go on under a new origin"),
  Command.withExamples([
    {
      command: 'velocity audit restore-note --checkpoint published/checkpoint --reason "disk lost, backup of 03:00"',
      description: "With VELOCITY_OPERATOR_DATABASE_URL and VELOCITY_AUDIT_KEY_FILE"
    }
  ])
)
