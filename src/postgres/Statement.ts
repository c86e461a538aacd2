/** A statement and its result, as values: what everything above this room hands to a transaction and gets back. */

/**
 * One SQL statement with `$1`… for values. The text is made from the registry's quoted names only; what a client sent
 * travels in `params`: null, strings (their type is inferred by the server), booleans, numbers, bigints, bytes, dates,
 * and flat arrays of one of these. Texts are prepared and cached by their wording, so keep them few.
 */
export interface Statement {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/**
 * What a statement answered. Values come as the driver decodes them: int8 as bigint, numeric as string, timestamps as
 * `Date` without microseconds, json parsed; cast to text what must be exact.
 */
export interface SqlResult {
  /** The command's name: SELECT, INSERT, … */
  readonly command: string
  readonly rowCount: number
  readonly rows: ReadonlyArray<Readonly<Record<string, unknown>>>
}

/** Makes a statement. */
export const statement = (sql: string, params: ReadonlyArray<unknown> = []): Statement => ({ sql, params })

/** A name as SQL writes it: quoted, with quotes doubled, so that a field may be called `order`. */
export const quoteName = (name: string): string => `"${name.replaceAll('"', '""')}"`
