/** `velocity audit keygen`: the sealer's key. The secret half goes into a file of its own, the public one to stdout. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { generateSignerKey, isKeyName } from "../domain/NoteKey.ts"
import { writeNew } from "../operator/source/NewFile.ts"
import { failed } from "./Settings.ts"

const maxNameLength = 255

const reasonOf = (cause: unknown, path: string): string => {
  const { code, message } = cause as NodeJS.ErrnoException
  return code === "EEXIST" ? `${path} exists already, and a key is never overwritten` : message
}

export const keygen = Command.make(
  "keygen",
  {
    name: Flag.String("name").pipe(
      Flag.withDescription("The key's name, best the log's origin, such as velocity.example/audit"),
      Flag.withMetavar("NAME"),
      Flag.filter(
        (text) => isKeyName(text) && text.length <= maxNameLength,
        () => "a name of 1 to 255 characters without spaces and plus signs"
      )
    ),
    out: Flag.String("out").pipe(
      Flag.withDescription("Where the signer key is written, for its owner alone; the file must not exist"),
      Flag.withMetavar("FILE")
    )
  },
  Effect.fnUntraced(function* ({ name, out }) {
    const { signerKey, verifierKey } = yield* Effect.promise(() => generateSignerKey(name))
    yield* Effect.tryPromise({
      try: () => writeNew(out, `${signerKey}\n`, 0o600),
      catch: (cause) => failed(`the signer key was not written: ${reasonOf(cause, out)}`)
    })
    yield* Console.log(verifierKey)
  })
).pipe(
  Command.withDescription("Make the key that checkpoints are signed with; prints the public key"),
  Command.withExamples([
    {
      command: "velocity audit keygen --name velocity.example/audit --out signer.key > verifier.key",
      description: "signer.key for the sealer, verifier.key for everybody"
    }
  ])
)
