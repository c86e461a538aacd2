/**
 * What a definition's status says beside its conditions (product.md section 3): the plan that waits or is carried out,
 * and about how many records it has. Bounded, since it is part of a Kubernetes object (fine print 20), and it
 * does not change while nothing happens (fine print 31).
 */
import type { Step } from "../../provisioning/plan/Plan.ts"

/** At most so many steps, and so many bytes of JSON in all; the rest is in `platform.plan_steps`. */
export const maxSteps = 100
export const maxBytes = 64 * 1024

/** A plan to be told. */
export interface Told {
  readonly hash: string
  readonly state: "Waiting" | "Running"
  /** The number of the step that it is at, where it is carried out. */
  readonly step?: number | undefined
  readonly steps: ReadonlyArray<Step>
}

/** A step without its statements, which a person reads first. */
const briefOf = ({ does, estimate, lock, losesData, needsApproval, phase, rewrites, why }: Step) => ({
  phase,
  does,
  lock,
  rewrites,
  losesData,
  needsApproval,
  ...(estimate === undefined ? {} : { estimate }),
  ...(why === undefined ? {} : { why })
})

/** The first of some texts that are no longer than `bytes` together. */
const fitting = <A>(items: ReadonlyArray<A>, bytes: number, textOf: (item: A) => string): ReadonlyArray<A> => {
  let left = bytes
  const past = items.findIndex((item) => {
    left -= Buffer.byteLength(textOf(item))
    return left < 0
  })
  return past < 0 ? items : items.slice(0, past)
}

/** The plan as a status has it: `truncated` where statements are left out, or even steps. */
export const planStatus = ({ hash, state, step, steps }: Told): Readonly<Record<string, unknown>> => {
  const head = { hash, state, ...(step === undefined ? {} : { step }) }
  const told = (shown: ReadonlyArray<object>, truncated: boolean) => ({
    ...head,
    steps: shown,
    ...(truncated ? { truncated } : {})
  })
  const room = (shown: ReadonlyArray<object>) => maxBytes - Buffer.byteLength(JSON.stringify(told(shown, true)))
  const listed = fitting(steps.slice(0, maxSteps), room([]), (one) => `${JSON.stringify(briefOf(one))},`)
  const briefs = listed.map(briefOf)
  const spelled = fitting(listed, room(briefs), ({ sql }) => `"sql":${JSON.stringify(sql)},`).length
  const shown = listed.map((one, at) => (at < spelled ? { ...briefOf(one), sql: one.sql } : briefOf(one)))
  return told(shown, spelled < steps.length)
}

/** A number of records to one significant digit, so that it is seldom another. */
export const rounded = (records: number): number => Number(records.toPrecision(1))
