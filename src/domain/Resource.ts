/**
 * The envelope of every resource, and the one decoder of manifests: unknown keys at any depth are refused, and every
 * fault is told at once, by pointer.
 */
import { Exit, Schema } from "effect"
import { ApiKeySpec, apiKeyFaults } from "./ApiKey.ts"
import { ApplicationSpec } from "./Application.ts"
import { AuthStrategySpec, strategyFaults, velocityNamespace } from "./AuthStrategy.ts"
import { DomainSpec } from "./Domain.ts"
import { type Fault, fault, pointerOf } from "./Fault.ts"
import { plainIssues } from "./Issues.ts"
import { OrganisationSpec } from "./Organisation.ts"
import { bindingFaults, RoleBindingSpec } from "./RoleBinding.ts"
import { SchemaDefinitionSpec } from "./SchemaDefinition.ts"

export const apiVersion = "velocity.sh/v1"

const LabelMap = Schema.Record(Schema.String.check(Schema.isMaxLength(317)), Schema.String)

/** What we read of an object's metadata; what an API server adds beside it is passed over, anything else refused. */
export const Metadata = Schema.Struct({
  name: Schema.String.check(
    Schema.isMinLength(1),
    Schema.isMaxLength(63),
    Schema.isPattern(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/u, { message: "a DNS label" })
  ),
  namespace: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(63),
      Schema.isPattern(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/u, { message: "a DNS label" })
    )
  ),
  labels: Schema.optionalKey(LabelMap),
  annotations: Schema.optionalKey(LabelMap),
  uid: Schema.optionalKey(Schema.String),
  generation: Schema.optionalKey(Schema.Int)
})
export type Metadata = typeof Metadata.Type

export const specs = {
  Organisation: OrganisationSpec,
  Application: ApplicationSpec,
  Domain: DomainSpec,
  SchemaDefinition: SchemaDefinitionSpec,
  AuthStrategy: AuthStrategySpec,
  RoleBinding: RoleBindingSpec,
  ApiKey: ApiKeySpec
} as const

export type Kind = keyof typeof specs
export const kinds = Object.keys(specs) as ReadonlyArray<Kind>

/** The spec of a kind. */
export type SpecOf<K extends Kind> = (typeof specs)[K]["Type"]

/** A decoded resource of one kind. */
export interface ResourceOf<K extends Kind> {
  readonly kind: K
  readonly metadata: Metadata & { readonly namespace: string }
  readonly spec: SpecOf<K>
}

export type Resource = { readonly [K in Kind]: ResourceOf<K> }[Kind]

/** `{kind}/{namespace}/{name}`: what a resource is called in messages and queues. */
export const identityOf = (resource: {
  readonly kind: string
  readonly metadata: { readonly namespace: string; readonly name: string }
}) => `${resource.kind}/${resource.metadata.namespace}/${resource.metadata.name}`

/** kstatus-compatible. */
export interface Condition {
  readonly type: "Ready" | "Provisioned" | "Serving" | "Reconciling" | "Stalled"
  readonly status: "True" | "False" | "Unknown"
  /** UpperCamelCase, for programs. */
  readonly reason: string
  readonly message: string
  readonly observedGeneration?: number
  readonly lastTransitionTime: string
}

/** Decodes with every issue as a fault; `path` is where the value stands in the whole. */
export const decodeStrictly = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S,
  value: unknown,
  path: ReadonlyArray<PropertyKey> = []
): { readonly value: S["Type"] } | { readonly faults: ReadonlyArray<Fault> } => {
  const exit = Schema.decodeUnknownExit(schema)(value, { errors: "all", onExcessProperty: "error" })
  if (Exit.isSuccess(exit)) return { value: exit.value }
  const [failure] = exit.cause.reasons
  if (failure?._tag !== "Fail" || !Schema.isSchemaError(failure.error)) {
    return { faults: [fault(path, "undecodable", "the value cannot be decoded")] }
  }
  return {
    faults: plainIssues(failure.error.issue, path).map((one) => fault(one.path, one.code, one.detail))
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const envelopeKeys = new Set(["apiVersion", "kind", "metadata", "spec", "status"])
/** What an API server keeps beside the metadata that we read (Kubernetes API reference, ObjectMeta). */
const serverKeys = new Set([
  "creationTimestamp",
  "deletionGracePeriodSeconds",
  "deletionTimestamp",
  "finalizers",
  "generateName",
  "managedFields",
  "ownerReferences",
  "resourceVersion",
  "selfLink"
])

/** Texts that Postgres cannot hold: with U+0000, or with half of a surrogate pair. Keys too. */
const textFaults = (value: unknown, path: ReadonlyArray<PropertyKey>): ReadonlyArray<Fault> => {
  if (typeof value === "string") {
    return value.includes("\u0000") || !value.isWellFormed()
      ? [fault(path, "text", "U+0000 and halves of surrogate pairs cannot be stored")]
      : []
  }
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([key, item]) => [
    ...textFaults(key, [...path, key]),
    ...textFaults(item, [...path, key])
  ])
}

const isKind = (value: unknown): value is Kind => typeof value === "string" && Object.hasOwn(specs, value)

/** Rules across the keys of a resource; those of a SchemaDefinition are `Admission`'s, told as conditions. */
const crossFaults = (resource: Resource): ReadonlyArray<Fault> => {
  const found =
    resource.kind === "AuthStrategy"
      ? strategyFaults(resource.spec)
      : resource.kind === "RoleBinding"
        ? bindingFaults(resource.spec, resource.metadata.namespace)
        : resource.kind === "ApiKey"
          ? apiKeyFaults(resource.spec, resource.metadata.namespace)
          : []
  return found.map(({ code, detail, pointer }) => ({ pointer: pointerOf(["spec"]) + pointer, code, detail }))
}

export type DecodedResource = { readonly resource: Resource } | { readonly faults: ReadonlyArray<Fault> }

/** Decodes one manifest. `namespace` is where it lands when it names none. */
export const decodeResource = (value: unknown, namespace = velocityNamespace): DecodedResource => {
  if (!isRecord(value)) return { faults: [fault([], "invalid", "a manifest is a mapping")] }
  const strangers = Object.keys(value)
    .filter((key) => !envelopeKeys.has(key))
    .map((key) => fault([key], "unknown_key", `unknown key ${key}`))
  if (value.apiVersion !== apiVersion) {
    return { faults: [fault(["apiVersion"], "invalid", `apiVersion must be ${apiVersion}`), ...strangers] }
  }
  if (!isKind(value.kind)) {
    return { faults: [fault(["kind"], "invalid", `kind must be one of ${kinds.join(", ")}`), ...strangers] }
  }
  const { kind } = value
  const given = isRecord(value.metadata) ? value.metadata : {}
  const present = {
    ...Object.fromEntries(Object.entries(given).filter(([key]) => !serverKeys.has(key))),
    namespace: given.namespace ?? namespace
  }
  const metadata = decodeStrictly(Metadata, present, ["metadata"])
  const spec = decodeStrictly(specs[kind] as Schema.ConstraintDecoder<unknown>, value.spec ?? {}, ["spec"])
  const faults = [
    ...strangers,
    ...("faults" in metadata ? metadata.faults : []),
    ...("faults" in spec ? spec.faults : [])
  ]
  if (faults.length > 0 || "faults" in metadata || "faults" in spec) return { faults }
  const resource = { kind, metadata: metadata.value, spec: spec.value } as unknown as Resource
  const crossed = [
    ...textFaults(metadata.value, ["metadata"]),
    ...textFaults(spec.value, ["spec"]),
    ...crossFaults(resource)
  ]
  return crossed.length > 0 ? { faults: crossed } : { resource }
}
