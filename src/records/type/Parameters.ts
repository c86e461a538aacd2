/** The parameters of one statement, bound in the order in which its text names them. */

/** Adds a value and answers its place, `$7`. */
export type Bind = (value: unknown) => string

/** See the module. */
export class Parameters {
  readonly values: Array<unknown> = []
  readonly bind: Bind = (value) => `$${this.values.push(value)}`
}
