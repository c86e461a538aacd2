/**
 * The API server: requests, and watches as streams of lines. Configuration and credentials are client-node's (kubeconfig,
 * in-cluster, exec plugins, rotated tokens); the requests are ours, because its informer has no bookmarks and stalls in
 * silence, and its patches need a discovery each.
 */
import { request as httpRequest, type IncomingMessage } from "node:http"
import { request as httpsRequest, type RequestOptions } from "node:https"
import type { KubeConfig } from "@kubernetes/client-node"
import { Context, Data, Effect, Layer, Stream } from "effect"

/** Why a request failed, as far as a caller can act on it. */
export type KubeReason =
  /** Nothing of that name. */
  | "NotFound"
  /** Somebody else was faster, or it is there already. */
  | "Conflict"
  /** The resource version is too old: list again. */
  | "Expired"
  /** We may not, or nobody knows us. */
  | "Forbidden"
  /** The object is not as its schema demands. */
  | "Invalid"
  /** Too many requests, or an overloaded server: later. */
  | "Throttled"
  /** No answer, or an answer that is none. */
  | "Unavailable"

/** A request that the API server refused or did not answer. */
export class KubeError extends Data.TaggedError("KubeError")<{
  readonly reason: KubeReason
  /** HTTP's status; 0 without an answer. */
  readonly status: number
  readonly message: string
  /** What the server asks to wait, in seconds. */
  readonly retryAfter?: number | undefined
}> {}

const reasons: Readonly<Record<number, KubeReason>> = {
  401: "Forbidden",
  403: "Forbidden",
  404: "NotFound",
  409: "Conflict",
  410: "Expired",
  422: "Invalid",
  400: "Invalid",
  429: "Throttled"
}

export interface KubeRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  /** `/apis/velocity.sh/v1/domains` */
  readonly path: string
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly body?: unknown
  /** Of the body; application/json unless said. */
  readonly contentType?: string
}

/** Media types of patches. */
export const patches = {
  apply: "application/apply-patch+yaml",
  json: "application/json-patch+json",
  merge: "application/merge-patch+json"
} as const

/** One API server. */
export class Kube extends Context.Service<
  Kube,
  {
    /** A request and the JSON that answers it; ends within 30 seconds. */
    readonly request: (asked: KubeRequest) => Effect.Effect<unknown, KubeError>
    /** The lines of an answer that does not end, for as long as the stream is read. */
    readonly lines: (asked: KubeRequest) => Stream.Stream<string, KubeError>
  }
>()("velocity/kubernetes/Kube") {
  /** Over a configuration that is loaded already. */
  static readonly layerOf = (config: KubeConfig) => Layer.succeed(Kube, make(config))

  /** As kubectl finds it: KUBECONFIG, ~/.kube/config, or the cluster that we run in. */
  static readonly layer = Layer.effect(
    Kube,
    Effect.promise(async () => {
      const config = await emptyConfig()
      config.loadFromDefault()
      return make(config)
    })
  )
}

/** Loaded when a cluster is spoken to, and not with the command line: it costs half a second and 130 MB. */
const emptyConfig = async (): Promise<KubeConfig> => new (await import("@kubernetes/client-node")).KubeConfig()

/** A kubeconfig file's. */
export const configOf = async (file: string): Promise<KubeConfig> => {
  const config = await emptyConfig()
  config.loadFromFile(file)
  return config
}

const requestTimeout = 30_000
/** The most that an answer may have: a list is read in pages. */
const maxAnswer = 64 * 1024 * 1024

const unavailable = (message: string, status = 0) => new KubeError({ reason: "Unavailable", status, message })

const failureOf = (status: number, headers: IncomingMessage["headers"], body: string): KubeError => {
  let message = body.slice(0, 1_000)
  try {
    const said = JSON.parse(body) as { readonly message?: unknown }
    if (typeof said.message === "string") message = said.message
  } catch {
    // a proxy's page, or nothing: told as it came
  }
  const retryAfter = Number(headers["retry-after"])
  return new KubeError({
    reason: reasons[status] ?? "Unavailable",
    status,
    message: message === "" ? `the API server answered ${status}` : message,
    retryAfter: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : undefined
  })
}

const make = (config: KubeConfig): Kube["Service"] => {
  const cluster = config.getCurrentCluster()
  const server = new URL(cluster?.server ?? "https://localhost")
  const send = server.protocol === "http:" ? httpRequest : httpsRequest

  /** Sends a request; the answer's head comes back, its body is the caller's to read. */
  const open = (asked: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> =>
    (async () => {
      const url = new URL(server.pathname.replace(/\/$/u, "") + asked.path, server)
      for (const [name, value] of Object.entries(asked.query ?? {})) {
        if (value !== undefined) url.searchParams.set(name, value)
      }
      const body = asked.body === undefined ? undefined : Buffer.from(JSON.stringify(asked.body))
      const options: RequestOptions = {
        method: asked.method,
        headers: {
          accept: "application/json",
          "user-agent": "velocity",
          ...(body === undefined
            ? {}
            : { "content-type": asked.contentType ?? "application/json", "content-length": body.length })
        },
        signal
      }
      await config.applyToHTTPSOptions(options)
      return await new Promise<IncomingMessage>((done, failed) => {
        const request = send(url, options, done)
        request.once("error", failed)
        request.end(body)
      })
    })()

  const textOf = async (answer: IncomingMessage): Promise<string> => {
    const parts: Array<Buffer> = []
    let length = 0
    for await (const part of answer as AsyncIterable<Buffer>) {
      length += part.length
      if (length > maxAnswer) throw new Error(`an answer of more than ${maxAnswer} bytes`)
      parts.push(part)
    }
    return Buffer.concat(parts).toString("utf8")
  }

  const asKubeError = (cause: unknown): KubeError =>
    cause instanceof KubeError ? cause : unavailable(cause instanceof Error ? cause.message : String(cause))

  const accepted = async (answer: IncomingMessage): Promise<IncomingMessage> => {
    const status = answer.statusCode ?? 0
    if (status >= 200 && status < 300) return answer
    throw failureOf(status, answer.headers, await textOf(answer))
  }

  const request: Kube["Service"]["request"] = (asked) =>
    Effect.tryPromise({
      try: async (signal) => {
        const text = await textOf(await accepted(await open(asked, signal)))
        return text === "" ? undefined : (JSON.parse(text) as unknown)
      },
      catch: asKubeError
    }).pipe(
      Effect.timeoutOrElse({
        duration: requestTimeout,
        orElse: () => Effect.fail(unavailable(`${asked.method} ${asked.path}: no answer in time`))
      }),
      Effect.withSpan("Kube.request", { attributes: { method: asked.method, path: asked.path } })
    )

  const linesOf = async function* (asked: KubeRequest, stop: AbortController): AsyncGenerator<string> {
    try {
      const answer = await accepted(await open(asked, stop.signal))
      let rest = ""
      for await (const part of answer.setEncoding("utf8") as AsyncIterable<string>) {
        const lines = (rest + part).split("\n")
        rest = lines.pop() ?? ""
        if (rest.length > maxAnswer) throw new Error("a line without an end")
        yield* lines.filter((line) => line !== "")
      }
    } finally {
      stop.abort()
    }
  }

  const lines: Kube["Service"]["lines"] = (asked) =>
    Stream.unwrap(
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => new AbortController()),
          (stop) => Effect.sync(() => stop.abort())
        ),
        (stop) => Stream.fromAsyncIterable(linesOf(asked, stop), asKubeError)
      )
    )

  return Kube.of({ request, lines })
}
