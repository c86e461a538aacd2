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

/** Faults that one answer lists. */
export const maxFaults = 1000

/** As many faults as an answer lists, and a word about the others. */
export const boundedFaults = (
  faults: ReadonlyArray<Fault>,
  detail?: string
): { readonly errors: ReadonlyArray<Fault>; readonly detail?: string | undefined } =>
  faults.length <= maxFaults
    ? { errors: faults, detail }
    : { errors: faults.slice(0, maxFaults), detail: `the first ${maxFaults} faults; there are more` }

/** What the codes in `errors` of an answer mean, for docs/problems.md. */
export const requestFaults = {
  required: "The field has no value and must have one.",
  type: "The value is of another JSON type than the field.",
  format: "A text that is not of the field's form: a date, a time, a UUID, base64.",
  enum: "Not one of the field's values.",
  min: "Below the field's `min`.",
  max: "Above the field's `max`.",
  min_length: "Shorter than `minLength`: code points of a string, bytes of a bytes field.",
  max_length: "Longer than `maxLength`.",
  pattern: "Does not match the field's pattern.",
  precision: "More digits before the point than the field holds.",
  scale: "More digits after the point than the field holds; nothing is rounded.",
  out_of_range: "Beyond what the field's type can hold, such as 64 bits.",
  depth: "Nested deeper than 32.",
  nul_character: "U+0000 cannot be stored.",
  lone_surrogate: "Half of a surrogate pair is no character.",
  invalid: "Breaks a rule that has no code of its own.",
  unknown_field: "The record type has no such field.",
  read_only: "A system column can be sent back as it is, and not be changed.",
  unique: "Another live record has this value.",
  reference_not_found: "There is no live record of this id that the caller may see.",
  rule: "A validation rule of the definition does not hold; the detail is its message.",
  rule_error: "A validation rule could not be judged on this record.",
  field_not_readable: "The caller cannot read the field unmasked.",
  field_not_writable: "The caller may not write the field.",
  patch: "An operation is not of the form that RFC 6902 gives it.",
  patch_path: "The path of a patch operation leads to nothing in the record.",
  patch_test: "A patch operation `test` does not hold.",
  malformed: "Not of the form that is asked for.",
  malformed_query: "Not of the form that the grammar of queries asks for.",
  unknown_operator: "There is no such operator, or not for the field's type.",
  not_filterable: "The field is neither filterable nor indexed nor unique.",
  query_too_large: "Beyond a limit of queries.",
  unknown_key: "A definition has no such key; what may be meant is said.",
  backfill: "The `backfill` of a definition's field cannot be computed.",
  rule_cost: "A rule of a definition could cost more than a request may."
} as const satisfies Record<string, string>
