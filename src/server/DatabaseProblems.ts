/**
 * A failure of the database outside records, as a problem. What the server said goes to the log, never to the caller.
 */

import { type Problem, problem } from "../domain/Problem.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"

/** Reads alone come here, so nothing was done in any case. */
export const databaseProblem = ({ reason }: DatabaseFailure): Problem => {
  const { cause } = reason
  switch (reason._tag) {
    case "Unavailable":
    case "CommitUnknown":
      return problem("unavailable", { cause })
    case "Timeout":
      return problem("timeout", { cause })
    case "LockTimeout":
      return problem("lock_timeout", { cause })
    case "InvalidText":
    case "OutOfRange":
      // a text with a NUL, a 30th of February: what the query said, and nothing of ours
      return problem("malformed_query", { detail: "a parameter has a value that cannot be", cause })
    default:
      return problem("internal", { cause })
  }
}
