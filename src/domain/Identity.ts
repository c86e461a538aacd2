/** Who is asking. */

/** Facts about an actor that row filters compare with. */
export type Attributes = Readonly<Record<string, string | ReadonlyArray<string>>>

/** What a token proved. */
export interface Identity {
  /** `{strategy}/{subject}`: the actor's name everywhere. */
  readonly actor: string
  readonly strategy: string
  readonly subject: string
  /** The token's mapped roles; RoleBindings are added per domain. */
  readonly roles: ReadonlyArray<string>
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
