/** One thing that is wrong with an input: where, by which rule, in plain words. */
export interface Fault {
  /** A JSON pointer (RFC 6901) into the input: `/spec/fields/2/min`, `/po_number`. Empty for the whole. */
  readonly pointer: string
  /** Stable, for programs. */
  readonly code: string
  /** For people. Quotes no value that the reader may not see. */
  readonly detail: string
}

/** One step of a pointer, escaped. */
const escapeStep = (step: PropertyKey): string => String(step).replaceAll("~", "~0").replaceAll("/", "~1")

/** A JSON pointer from the steps of a path. */
export const pointerOf = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((step) => `/${escapeStep(step)}`).join("")

export const fault = (path: ReadonlyArray<PropertyKey>, code: string, detail: string): Fault => ({
  pointer: pointerOf(path),
  code,
  detail
})
