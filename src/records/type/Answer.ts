import type * as Stream from "effect/Stream"

/** What a caller is answered with. */
export interface Answer {
  readonly status: number
  /**
   * JSON as Postgres made it; undefined for none. A page stays the bytes that came: to decode and encode them again costs
   * as much as reading the rows (names beyond Latin-1 make strings of two bytes a unit, which V8 encodes slowly).
   */
  readonly body: string | Uint8Array | undefined
  readonly headers: Readonly<Record<string, string>>
  /** In place of `body`: NDJSON as it comes (`application/x-ndjson`). It does the work as it is read, and never fails. */
  readonly stream?: Stream.Stream<Uint8Array> | undefined
}
