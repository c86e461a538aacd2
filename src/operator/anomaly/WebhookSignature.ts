/**
 * Standard Webhooks 1.0.0 (github.com/standard-webhooks, spec/standard-webhooks.md), symmetric signatures: HMAC-SHA256 over
 * `{id}.{timestamp}.{body}`, with the secret written as `whsec_` and base64 of 24 to 64 bytes.
 */
import { createHmac } from "node:crypto"

/** The key of a secret; undefined where it is not one. */
export const secretKey = (secret: string): Buffer | undefined => {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/u.exec(secret)?.[1]
  if (encoded === undefined) return undefined
  const key = Buffer.from(encoded, "base64")
  return key.length >= 24 && key.length <= 64 && key.toString("base64") === encoded ? key : undefined
}

/** What is sent, as it is sent; `timestamp` is of the attempt, in seconds. */
export interface Message {
  /** The same on every attempt; without `.`. */
  readonly id: string
  readonly timestamp: number
  readonly body: string
}

const signature = (secret: string, { body, id, timestamp }: Message): string => {
  const key = secretKey(secret)
  if (key === undefined) throw new Error("a secret is whsec_ and 24 to 64 bytes in base64")
  return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`
}

/** The three headers; one signature for each secret, so that a receiver may change from one to the next. */
export const signed = (secrets: ReadonlyArray<string>, message: Message): Readonly<Record<string, string>> => ({
  "webhook-id": message.id,
  "webhook-timestamp": String(message.timestamp),
  "webhook-signature": secrets.map((secret) => signature(secret, message)).join(" ")
})
