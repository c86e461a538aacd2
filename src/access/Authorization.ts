/**
 * What an identity may do: its roles in one domain, and whether they grant an operation.
 *
 * Roles are the token's mapped roles and those of RoleBindings that name the actor: in that domain, not expired at this
 * moment, and in scope of what is asked. An API key may be narrowed to scopes itself; whatever is outside them it does with
 * no role at all. Nothing else ever adds one. Roles that begin with `platform-` are the
 * platform's: they come from its own strategy and from bindings in Velocity's own namespace, count there alone, and a
 * tenant's issuer that claims one is refused as a whole, so that the claim is seen and audited.
 */
import { Result } from "effect"
import { grantsOf, mayWrite, visibilityOf } from "../domain/Access.ts"
import type { Caller, Identity } from "../domain/Identity.ts"
import { type Operation, operations } from "../domain/Operation.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import type { BindingScope } from "../domain/RoleBinding.ts"
import type { SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"

/** The chain of what belongs to no domain. */
export const platformChain = "platform"

/** A RoleBinding in force, as the registry holds it. */
export interface Binding {
  readonly actor: string
  /** The domain, or `platform` for one of Velocity's own namespace. */
  readonly chain: string
  readonly roles: ReadonlyArray<string>
  /** Empty: not narrowed. Otherwise what is asked must fit one of them. */
  readonly scopes: ReadonlyArray<BindingScope>
  /** Milliseconds since 1970; infinite where it does not end. */
  readonly expiresAt: number
}

/** What is asked: an operation on a record type, or (without them) anything in the domain. */
export interface Target {
  readonly chain: string
  readonly object?: string | undefined
  readonly version?: string | undefined
  readonly operation?: Operation | undefined
}

/** The facts of one request beside who asks. */
export type RequestFacts = Pick<Caller, "requestId" | "address" | "reason" | "ticket">

/** Whether a role is the platform's own. */
export const isPlatformRole = (role: string): boolean => role.startsWith("platform-")

/** What a narrowed binding says nothing about is not granted by it: a scope with an object needs that very object. */
const covers = (scope: BindingScope, target: Target): boolean =>
  (scope.object === undefined || scope.object === target.object) &&
  (scope.version === undefined || scope.version === target.version) &&
  (scope.operations === undefined || (target.operation !== undefined && scope.operations.includes(target.operation)))

const grants = (binding: Binding, identity: Identity, target: Target, now: number): boolean =>
  binding.actor === identity.actor &&
  binding.chain === target.chain &&
  binding.expiresAt > now &&
  (binding.scopes.length === 0 || binding.scopes.some((scope) => covers(scope, target)))

const isInScope = ({ scopes = [] }: Identity, target: Target): boolean =>
  scopes.length === 0 || scopes.some((scope) => covers(scope, target))

/**
 * The roles of an identity for a target at a time, sorted, each once; none where it is narrowed to something else.
 * `platformStrategies` are the ids of those whose tokens and keys may carry platform roles. Fails with 403
 * `platform_role_refused` where another strategy's does.
 */
export const rolesFor = (
  identity: Identity,
  target: Target,
  bindings: Iterable<Binding>,
  platformStrategies: ReadonlyArray<string>,
  now: number
): Result.Result<ReadonlyArray<string>, Problem> => {
  if (!platformStrategies.includes(identity.strategy) && identity.roles.some(isPlatformRole)) {
    return Result.fail(
      problem("platform_role_refused", {
        detail: "the token carries a role that begins with platform-, and its strategy is not the platform's"
      })
    )
  }
  if (!isInScope(identity, target)) return Result.succeed([])
  const onPlatform = target.chain === platformChain
  // a domain's binding cannot give what is the platform's, nor the platform's what is a domain's
  const belongs = (role: string): boolean => isPlatformRole(role) === onPlatform
  const roles = new Set(identity.roles.filter(belongs))
  for (const binding of bindings) {
    if (grants(binding, identity, target, now)) for (const role of binding.roles) if (belongs(role)) roles.add(role)
  }
  return Result.succeed([...roles].sort())
}

/** The identity as a caller of this target; fails as `rolesFor` does. */
export const callerFor = (
  identity: Identity,
  target: Target,
  bindings: Iterable<Binding>,
  platformStrategies: ReadonlyArray<string>,
  facts: RequestFacts,
  now: number
): Result.Result<Caller, Problem> =>
  Result.map(rolesFor(identity, target, bindings, platformStrategies, now), (roles) => ({ identity, roles, ...facts }))

/** Whether one of these roles grants an operation on a record type. */
export const isGranted = (spec: SchemaDefinitionSpec, operation: Operation, roles: ReadonlyArray<string>): boolean =>
  grantsOf(spec, operation).some((grant) => roles.includes(grant.role))

/** Checks an operation; fails with 403 `operation_not_granted`. Row filters and fields are the record type's to apply. */
export const requireOperation = (
  spec: SchemaDefinitionSpec,
  operation: Operation,
  caller: Caller
): Result.Result<void, Problem> =>
  isGranted(spec, operation, caller.roles)
    ? Result.void
    : Result.fail(
        problem("operation_not_granted", {
          detail: `none of your roles in this domain grants ${operation} on ${spec.object}`
        })
      )

/** Checks for one of some platform roles; fails with 403 `operation_not_granted`. */
export const requirePlatformRole = (
  caller: Caller,
  accepted: ReadonlyArray<`platform-${string}`>
): Result.Result<void, Problem> =>
  accepted.some((role) => caller.roles.includes(role))
    ? Result.void
    : Result.fail(problem("operation_not_granted", { detail: `this asks for one of the roles ${accepted.join(", ")}` }))

/** An operation that the caller may do, and by which of his roles. */
export interface GrantedOperation {
  readonly operation: Operation
  readonly roles: ReadonlyArray<string>
  /** Whether only rows that pass a filter are meant: no role of his grants it without one. */
  readonly filtered: boolean
}

/** What somebody may do with a record type. */
export interface RecordRights {
  readonly path: string
  readonly operations: ReadonlyArray<GrantedOperation>
  readonly fields: {
    readonly readable: ReadonlyArray<string>
    /** Shown as a part, or only by name. */
    readonly masked: ReadonlyArray<string>
    readonly writable: ReadonlyArray<string>
  }
}

/**
 * What an identity may do with a record type, for `GET /api/me?path=`. `rolesOf` answers its roles for an operation,
 * because a binding's scope may grant one and not another.
 */
export const rightsOn = (
  path: string,
  spec: SchemaDefinitionSpec,
  rolesOf: (operation: Operation) => ReadonlyArray<string>
): RecordRights => {
  const granted = operations.flatMap((operation): ReadonlyArray<GrantedOperation> => {
    const held = rolesOf(operation)
    const by = grantsOf(spec, operation).filter((grant) => held.includes(grant.role))
    if (by.length === 0) return []
    const filtered = by.every((grant) => grant.filters.length > 0)
    return [{ operation, roles: [...new Set(by.map((grant) => grant.role))].sort(), filtered }]
  })
  const may = (operation: Operation): boolean => granted.some((one) => one.operation === operation)
  const names = (pass: (field: SchemaDefinitionSpec["fields"][number]) => boolean) =>
    spec.fields.filter(pass).map((field) => field.name)
  const reading = rolesOf("read")
  const writes = (["create", "update"] as const).filter(may)
  return {
    path,
    operations: granted,
    fields: {
      readable: may("read") ? names((field) => visibilityOf(field, reading) === "clear") : [],
      masked: may("read") ? names((field) => visibilityOf(field, reading) !== "clear") : [],
      writable: names((field) => writes.some((operation) => mayWrite(field, rolesOf(operation))))
    }
  }
}
