/** `velocity crd print`: the CustomResourceDefinitions of this version, for kubectl. */
import { Console, Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import { kinds } from "../domain/Resource.ts"
import { customResourceFiles, pluralOf } from "../kubernetes/CustomResources.ts"

const print = Command.make(
  "print",
  {
    kind: Argument.Literals("kind", kinds).pipe(
      Argument.withDescription("One kind; without it all of them"),
      Argument.optional
    )
  },
  Effect.fnUntraced(function* ({ kind }) {
    const files = customResourceFiles()
    const wanted = Option.match(kind, {
      onNone: () => [...files.values()],
      onSome: (one) => [files.get(`${pluralOf(one)}.yaml`) ?? ""]
    })
    yield* Console.log(wanted.join("---\n").trimEnd())
  })
).pipe(
  Command.withDescription("Print the CustomResourceDefinitions of this version"),
  Command.withExamples([
    { command: "velocity crd print | kubectl apply --server-side -f -", description: "Install or update all kinds" },
    { command: "velocity crd print SchemaDefinition", description: "One kind" }
  ])
)

export const crd = Command.make("crd").pipe(
  Command.withDescription("Velocity's kinds for Kubernetes"),
  Command.withSubcommands([print])
)
