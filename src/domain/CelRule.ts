/**
 * What a schema says to a Kubernetes API server beside its structure, as annotations: rules in CEL, and how lists merge.
 * The operator judges the same by `Admission`; the API server says it at once, to whoever applies.
 */

/** A rule of `x-kubernetes-validations`. It may see the value (`self`), and the one before (`oldSelf`), and nothing else. */
export interface CelRule {
  readonly rule: string
  /** What is told when it does not hold; names no values. */
  readonly message: string
  /** The key of the value that is at fault, as `.key`. */
  readonly fieldPath?: string
}

declare module "effect/Schema" {
  namespace Annotations {
    interface Annotations {
      readonly celRules?: ReadonlyArray<CelRule> | undefined
      /** The keys by which the members of a list are told apart. */
      readonly listMapKeys?: ReadonlyArray<string> | undefined
      /** Of these keys exactly one is given. */
      readonly exactlyOneOf?: ReadonlyArray<string> | undefined
      /** Of a check: it has no form in a structural schema, and the operator alone judges it. */
      readonly operatorJudges?: true | undefined
      /** None of these keys is given. */
      readonly noneOf?: ReadonlyArray<string> | undefined
    }
  }
}

/** A key that may not be changed: neither its value, nor whether it is there. */
export const immutable = (key: string, required = true): CelRule => ({
  rule: required
    ? `self.${key} == oldSelf.${key}`
    : `has(self.${key}) == has(oldSelf.${key}) && (!has(self.${key}) || self.${key} == oldSelf.${key})`,
  message: `${key} cannot be changed`,
  fieldPath: `.${key}`
})
