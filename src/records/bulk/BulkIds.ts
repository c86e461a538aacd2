/** The ids that an import made: counted, and where they are asked for, kept in 16 bytes each. Part of `Bulk`. */
import * as Stream from "effect/Stream"
import type { Ready } from "./BulkSql.ts"

const encoder = new TextEncoder()

/** See the module. */
export class BulkIds {
  private readonly blocks: Array<Buffer> = []
  count = 0
  first: string | undefined
  last: string | undefined

  add(records: ReadonlyArray<Ready>, kept: boolean): void {
    this.first ??= records[0]?.id
    this.last = records[records.length - 1]?.id ?? this.last
    this.count += records.length
    if (kept) this.blocks.push(Buffer.from(records.map((record) => record.id.replaceAll("-", "")).join(""), "hex"))
  }

  /** `{"id":"…"}`, a line each. */
  lines(): Stream.Stream<Uint8Array> {
    return Stream.map(Stream.fromIterable(this.blocks), (block) => {
      let text = ""
      for (let at = 0; at < block.length; at += 16) {
        const hex = block.toString("hex", at, at + 16)
        text += `{"id":"${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}"}\n`
      }
      return encoder.encode(text)
    })
  }
}
