/** The `velocity` command: chooses a subcommand, provides its Layers, nothing else. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import { teardown } from "./cli/Teardown.ts"
import { run } from "./cli/Velocity.ts"

NodeRuntime.runMain(run.pipe(Effect.provide(NodeServices.layer)), { disableErrorReporting: true, teardown })
