/**
 * How the process ends. Documented in `velocity --help`:
 * 0 done, or stopped by SIGINT or SIGTERM; 1 failed, or tampered (audit verify); 2 could not tell, or wrong usage;
 * 78 (EX_CONFIG) the isolation check refused to start.
 */
import { Cause, Exit } from "effect"
import type { Teardown } from "effect/Runtime"
import { CommandFailed } from "./Settings.ts"

/** What is written to stderr for a failure, and the status: a person's mistake in one line, a defect with its trace. */
export const outcomeOf = (
  cause: Cause.Cause<unknown>
): { readonly code: number; readonly message: string | undefined } => {
  const error = Cause.squash(cause)
  if (error instanceof CommandFailed) {
    return { code: error.exitCode, message: error.message === "" ? undefined : `velocity: ${error.message}` }
  }
  // usage mistakes: the command line library has printed its help already
  if (typeof error === "object" && error !== null && "_tag" in error && error._tag === "ShowHelp") {
    return { code: 2, message: undefined }
  }
  return { code: 1, message: Cause.pretty(cause) }
}

/** A stop that was asked for is a success. */
export const teardown: Teardown = (exit, onExit) => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return onExit(0)
  const outcome = outcomeOf(exit.cause)
  if (outcome.message !== undefined) process.stderr.write(`${outcome.message}\n`)
  onExit(outcome.code)
}
