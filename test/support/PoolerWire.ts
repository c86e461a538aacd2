/** As much of the Postgres protocol as a pooler must read: where a message ends, and what a connection begins with. */

/** Cuts a stream of bytes into messages. What a connection begins with has no type, everything after it has one. */
export class Frames {
  private rest: Buffer = Buffer.alloc(0)
  private header: number

  constructor(untyped = false) {
    this.header = untyped ? 0 : 1
  }

  /** From here on messages have a type. */
  started(): void {
    this.header = 1
  }

  push(chunk: Buffer): ReadonlyArray<Buffer> {
    this.rest = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk])
    const messages: Array<Buffer> = []
    while (this.rest.length >= this.header + 4) {
      const end = this.header + this.rest.readUInt32BE(this.header)
      if (this.rest.length < end) break
      messages.push(this.rest.subarray(0, end))
      this.rest = this.rest.subarray(end)
    }
    return messages
  }
}

/** What the first packet asks for, where it is not a login. */
export const encrypting = 80877103
export const cancelling = 80877102

export const asks = (packet: Buffer, code: number): boolean => packet.readUInt32BE(4) === code

/** The parameters of a login. */
export const parametersOf = (packet: Buffer): Readonly<Record<string, string>> => {
  const words = packet.subarray(8).toString("utf8").split("\0")
  const parameters: Record<string, string> = {}
  for (let at = 0; words[at] !== undefined && words[at] !== ""; at += 2) {
    parameters[words[at] as string] = words[at + 1] ?? ""
  }
  return parameters
}

export const message = (type: string, body: Buffer): Buffer => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length + 4)
  return Buffer.concat([Buffer.from(type), length, body])
}

/** What a pooler says before it hangs up. */
export const refusal = (text: string): Buffer => message("E", Buffer.from(`SFATAL\0VFATAL\0C08P01\0M${text}\0\0`))
