import type * as Stream from "effect/Stream"

/** What a caller is answered with. */
export interface Answer {
  readonly status: number
  /** JSON text as Postgres made it; undefined for none. */
  readonly body: string | undefined
  readonly headers: Readonly<Record<string, string>>
  /** In place of `body`: NDJSON as it comes (`application/x-ndjson`). It does the work as it is read, and never fails. */
  readonly stream?: Stream.Stream<Uint8Array> | undefined
}
