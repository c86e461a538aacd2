/** Who is asking. */
import type { BindingScope } from "./RoleBinding.ts"

/** Facts about an actor that row filters compare with. */
export type Attributes = Readonly<Record<string, string | ReadonlyArray<string>>>

/** What may stand in a name or value that goes into the database's JSON: well-formed text without control characters. */
export const isPlain = (text: string): boolean => text.isWellFormed() && !/[\p{Cc}]/u.test(text)

/** A subject, a role or the name of an attribute: 1 to 255 characters of plain text. */
export const isName = (value: unknown): value is string =>
  typeof value === "string" && value !== "" && value.length <= 255 && isPlain(value)

/** What a token or a key proved. */
export interface Identity {
  /** `{strategy}/{subject}`: the actor's name everywhere. */
  readonly actor: string
  readonly strategy: string
  readonly subject: string
  /** The token's mapped roles, or the key's; RoleBindings are added per domain. */
  readonly roles: ReadonlyArray<string>
  /** To what all roles are narrowed, those of bindings too; nothing, or nothing in it: not at all. */
  readonly scopes?: ReadonlyArray<BindingScope>
  readonly attributes: Attributes
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

/** An identity in one domain, with the facts of one request. */
export interface Caller {
  readonly identity: Identity
  /** Token and bindings together, in this domain, for this record type and operation. Sorted, each once. */
  readonly roles: ReadonlyArray<string>
  readonly requestId: string
  /** The network address the request came from, for bounding denials. */
  readonly address: string
  /** X-Velocity-Reason and X-Velocity-Ticket. */
  readonly reason?: string | undefined
  readonly ticket?: string | undefined
}
