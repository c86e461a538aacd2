/**
 * What is said of a resource: conditions as kstatus reads them (Ready, Reconciling, Stalled), Provisioned where there is
 * something in Postgres to provision, and Serving where the API serves it. Pure.
 */
import type { Condition } from "../../domain/Resource.ts"
import type { Serving } from "./Serving.ts"

/** How a reconciliation ended. */
export type Verdict =
  /** All is as wanted. */
  | { readonly _tag: "Ready"; readonly reason: string; readonly message: string }
  /** Something else must come first; whoever brings it wakes this one. */
  | { readonly _tag: "Waiting"; readonly reason: string; readonly message: string; readonly provisioned?: boolean }
  /** It cannot be done until the resource is changed. */
  | { readonly _tag: "Stalled"; readonly reason: string; readonly message: string }

export const ready = (message: string, reason = "Reconciled"): Verdict => ({ _tag: "Ready", reason, message })
export const waiting = (reason: string, message: string, provisioned = false): Verdict => ({
  _tag: "Waiting",
  reason,
  message,
  provisioned
})
export const stalled = (reason: string, message: string): Verdict => ({ _tag: "Stalled", reason, message })

/** What becomes of a definition, in one word, for lists. */
export type Phase = "Pending" | "AwaitingApproval" | "Evolving" | "Provisioned" | "Withdrawing" | "Stalled"

const phases: Readonly<Record<string, Phase>> = {
  ApprovalRequired: "AwaitingApproval",
  PlanOvertaken: "AwaitingApproval",
  Evolving: "Evolving",
  WaitsForLock: "Evolving",
  // without a foreign key
  RefMissing: "Provisioned",
  Withdrawing: "Withdrawing"
}

export const phaseOf = ({ _tag, reason }: Verdict): Phase =>
  phases[reason] ?? (_tag === "Ready" ? "Provisioned" : _tag === "Waiting" ? "Pending" : "Stalled")

/** Longer messages are cut: a status is read by people. */
const maxMessage = 4_000

type Said = Omit<Condition, "lastTransitionTime" | "observedGeneration">

const said = (type: Condition["type"], status: Condition["status"], reason: string, message: string): Said => ({
  type,
  status,
  reason,
  message: message.length > maxMessage ? `${message.slice(0, maxMessage)}…` : message
})

/** Whether a verdict says anything of Postgres: of a resource that is leaving it does not. */
export type Provisioned = "none" | "said" | "kept"

/** Ready, Reconciling and Stalled of what is provisioned, by how it is served. */
const readyOf = (verdict: Verdict, serving: Serving | undefined): ReadonlyArray<Said> => {
  const { message, reason } = verdict
  if (serving === undefined || serving.status === "True") {
    return [
      said("Ready", "True", reason, message),
      said("Reconciling", "False", reason, ""),
      said("Stalled", "False", reason, "")
    ]
  }
  const isStuck = serving.reason === "ReplicaProblem"
  const held = isStuck ? "" : serving.message
  return [
    said("Ready", serving.status, serving.reason, serving.message),
    said("Reconciling", isStuck ? "False" : "True", serving.reason, held),
    said("Stalled", isStuck ? "True" : "False", serving.reason, isStuck ? serving.message : "")
  ]
}

const saidOf = (verdict: Verdict, about: Provisioned, serving: Serving | undefined): ReadonlyArray<Said> => {
  const { message, reason } = verdict
  const provisioned = (status: Condition["status"]) =>
    about === "said" ? [said("Provisioned", status, reason, message)] : []
  switch (verdict._tag) {
    case "Ready":
      return [...readyOf(verdict, serving), ...provisioned("True")]
    case "Waiting":
      return [
        said("Ready", "False", reason, message),
        ...provisioned(verdict.provisioned === true ? "True" : "False"),
        said("Reconciling", "True", reason, message),
        said("Stalled", "False", reason, "")
      ]
    case "Stalled":
      return [
        said("Ready", "False", reason, message),
        ...provisioned("False"),
        said("Reconciling", "False", reason, ""),
        said("Stalled", "True", reason, message)
      ]
  }
}

/** The conditions after a verdict; a condition whose status did not change keeps the time of its transition. */
export const conditionsOf = (
  verdict: Verdict,
  options: {
    readonly provisioned: Provisioned
    readonly generation: number
    readonly now: string
    readonly before: ReadonlyArray<Condition>
    /** Of a definition. */
    readonly serving?: Serving | undefined
  }
): ReadonlyArray<Condition> => {
  const { before, generation, now, provisioned, serving } = options
  const timed = (condition: Said, observedGeneration: number): Condition => {
    const was = before.find((one) => one.type === condition.type)
    return {
      ...condition,
      observedGeneration,
      lastTransitionTime: was !== undefined && was.status === condition.status ? was.lastTransitionTime : now
    }
  }
  return [
    ...saidOf(verdict, provisioned, serving).map((condition) => timed(condition, generation)),
    ...(serving === undefined
      ? []
      : [timed(said("Serving", serving.status, serving.reason, serving.message), serving.generation ?? generation)]),
    ...(provisioned === "kept" ? before.filter((one) => one.type === "Provisioned" || one.type === "Serving") : [])
  ]
}

/** The conditions of a resource whose manifest went bad: what was ready stays so, and it is stalled. */
export const spoiled = (before: ReadonlyArray<Condition>, message: string, now: string): ReadonlyArray<Condition> => {
  const stall: Said = said("Stalled", "True", "ManifestInvalid", message)
  const others =
    before.length > 0
      ? before.filter((one) => one.type !== "Stalled")
      : [{ ...said("Ready", "False", "ManifestInvalid", message), lastTransitionTime: now }]
  const was = before.find((one) => one.type === "Stalled")
  return [...others, { ...stall, lastTransitionTime: was?.status === "True" ? was.lastTransitionTime : now }]
}

/** Whether a condition is True. */
export const holds = (conditions: ReadonlyArray<Condition>, type: Condition["type"]): boolean =>
  conditions.some((one) => one.type === type && one.status === "True")
