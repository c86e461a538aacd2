/**
 * Lines of an NDJSON stream, cut from its bytes as they come. A line is held until it ends, and never more than a record
 * may have; one that is longer is given up, and its rest passes unread.
 */

/** Bytes of one record (fine print 14). */
export const maxRecord = 1024 * 1024

/** A line with something in it. */
export interface Line {
  /** From 1, empty lines counted. */
  readonly number: number
  /** Its text; `too_long` or `not_utf8` where there is none. */
  readonly text: string | undefined
  readonly fault?: "too_long" | "not_utf8"
}

const newline = 0x0a

/** Cuts bytes into lines. */
export class NdjsonLines {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true })
  private parts: Array<Uint8Array> = []
  private size = 0
  private tooLong = false
  private number = 0

  /** The lines that these bytes end. */
  push(bytes: Uint8Array): ReadonlyArray<Line> {
    const lines: Array<Line> = []
    let start = 0
    for (;;) {
      const end = bytes.indexOf(newline, start)
      if (end < 0) break
      this.keep(bytes.subarray(start, end))
      this.finish(lines)
      start = end + 1
    }
    if (start < bytes.length) this.keep(bytes.subarray(start))
    return lines
  }

  /** The last line, where the stream did not end with a line break. */
  end(): ReadonlyArray<Line> {
    const lines: Array<Line> = []
    if (this.size > 0 || this.tooLong) this.finish(lines)
    return lines
  }

  private keep(part: Uint8Array): void {
    if (this.tooLong) return
    if (this.size + part.length > maxRecord) {
      this.tooLong = true
      this.parts = []
      return
    }
    if (part.length === 0) return
    this.parts.push(part)
    this.size += part.length
  }

  private finish(lines: Array<Line>): void {
    const { parts, tooLong } = this
    this.parts = []
    this.size = 0
    this.tooLong = false
    this.number += 1
    if (tooLong) {
      lines.push({ number: this.number, text: undefined, fault: "too_long" })
      return
    }
    const [first] = parts
    const whole = parts.length === 1 && first !== undefined ? first : Buffer.concat(parts)
    try {
      const text = this.decoder.decode(whole)
      if (text.trim() !== "") lines.push({ number: this.number, text })
    } catch {
      lines.push({ number: this.number, text: undefined, fault: "not_utf8" })
    }
  }
}
