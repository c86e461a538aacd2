/** Why the server cannot listen where it was told to; the message says by whom a port is taken and which one is free. */
import { Data, Effect } from "effect"
import type { ServeError } from "effect/http/HttpServerError"
import { busyMessage } from "../postgres/Ports.ts"

export class ListenError extends Data.TaggedError("ListenError")<{
  readonly message: string
  readonly cause: unknown
}> {}

const reasons: Readonly<Record<string, string>> = {
  EACCES: "this user may not listen there (ports below 1024 are the system's)",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOTFOUND: "this machine has no such address"
}

/** The failure of the platform's server in a person's words. */
export const listenError = (host: string, port: number, { cause }: ServeError): Effect.Effect<ListenError> => {
  const { code = "", message } = cause as NodeJS.ErrnoException
  const said =
    code === "EADDRINUSE"
      ? Effect.promise(() => busyMessage(port))
      : Effect.succeed(`${host}:${port} cannot be listened at: ${reasons[code] ?? message}`)
  return Effect.map(said, (text) => new ListenError({ message: text, cause }))
}
