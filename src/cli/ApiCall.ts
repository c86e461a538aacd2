/**
 * One call of the API from a command: exact JSON in and out, and a problem as one line that says what to do.
 */
import { Effect, Redacted } from "effect"
import { type ExactValue, parse } from "../domain/ExactJson.ts"
import { failed, type Target } from "./Settings.ts"

export interface Call {
  readonly method?: "GET" | "POST"
  /** Behind the API's address, beginning with a slash. */
  readonly path: string
  readonly params?: ReadonlyArray<readonly [string, string]>
  readonly body?: BodyInit
  readonly headers?: Readonly<Record<string, string>>
}

const urlOf = (target: Target, call: Call): URL => {
  const url = new URL(call.path, target.api)
  for (const [name, value] of call.params ?? []) url.searchParams.append(name, value)
  return url
}

/** What a problem document says, on one line, with its faults below. */
export const problemText = (status: number, text: string): string => {
  try {
    const document = JSON.parse(text) as {
      readonly code?: string
      readonly title?: string
      readonly detail?: string
      readonly errors?: ReadonlyArray<{ readonly pointer: string; readonly detail: string }>
    }
    const faults = (document.errors ?? []).map((fault) => `\n  ${fault.pointer}: ${fault.detail}`).join("")
    return `${status} ${document.code ?? ""}: ${document.detail ?? document.title ?? ""}${faults}`
  } catch {
    return `${status}: ${text.slice(0, 200)}`
  }
}

/** Sends a call; no answer fails with status 2. */
const responseTo = Effect.fnUntraced(function* (target: Target, call: Call) {
  const url = urlOf(target, call)
  return yield* Effect.tryPromise({
    try: (signal) =>
      fetch(url, {
        method: call.method ?? "GET",
        headers: { authorization: `Bearer ${Redacted.value(target.token)}`, ...call.headers },
        signal,
        ...(call.body === undefined ? {} : { body: call.body, duplex: "half" as const })
      } as RequestInit),
    catch: (cause) =>
      failed(`${url.origin} does not answer (${String((cause as Error).cause ?? cause)}); is velocity dev running?`, 2)
  })
})

/** Sends a call and reads its answer, whatever its status. */
export const answerOf = Effect.fnUntraced(function* (target: Target, call: Call) {
  const response = yield* responseTo(target, call)
  return { status: response.status, text: yield* Effect.promise(() => response.text()) }
})

/** Sends a call and answers the response unread; anything but 2xx fails with status 1, no answer with 2. */
export const send = Effect.fnUntraced(function* (target: Target, call: Call) {
  const response = yield* responseTo(target, call)
  if (response.ok) return response
  const text = yield* Effect.promise(() => response.text())
  return yield* failed(problemText(response.status, text))
})

/** Sends a call and reads its JSON answer. */
export const callJson = Effect.fnUntraced(function* (target: Target, call: Call) {
  const response = yield* send(target, call)
  const text = yield* Effect.promise(() => response.text())
  return yield* Effect.try({
    try: (): ExactValue => parse(text, { maxDepth: 64 }),
    catch: () => failed(`${target.api} answered something that is not JSON; is it Velocity's API?`, 2)
  })
})

/** Lines of an answer that is read as it comes; the last one may lack its newline. */
export const linesOf = async function* (response: Response): AsyncGenerator<string> {
  const body: ReadableStream<Uint8Array> = response.body ?? new ReadableStream()
  let rest = ""
  for await (const text of body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)) {
    const parts = (rest + text).split("\n")
    rest = parts.pop() ?? ""
    yield* parts.filter((line) => line !== "")
  }
  if (rest !== "") yield rest
}
