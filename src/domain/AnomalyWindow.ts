/**
 * A rule's sliding windows over facts in the order of their minutes, in memory: what a dry run finds. The scanner keeps
 * the same sums in `platform.anomaly_buckets`, because its facts come in the order of commits.
 */
import {
  type AnomalyRule,
  amountOf,
  type Crossing,
  type Fact,
  type Group,
  groupOf,
  type Hours,
  hourMillis,
  matches,
  windowMillis
} from "./AnomalyRule.ts"

interface Open {
  readonly group: Group
  /** Minutes within the window, oldest first. */
  readonly minutes: Array<{ readonly minute: number; count: number }>
  total: number
  /** The hour that has its alert. */
  alerted: number | undefined
}

const keyOf = ({ actor, address, chain }: Group): string => JSON.stringify([chain, actor, address])

/** See the module. */
export class SlidingWindows {
  readonly rule: AnomalyRule
  readonly hours: Hours
  readonly width: number
  readonly open = new Map<string, Open>()
  /** The groups that the minute at hand counted for. */
  readonly touched = new Set<Open>()
  minute = Number.NEGATIVE_INFINITY

  constructor(rule: AnomalyRule, hours: Hours) {
    this.rule = rule
    this.hours = hours
    this.width = windowMillis(rule)
  }

  /** Takes a fact, no earlier than the one before; answers what the minutes before it crossed. */
  add(fact: Fact): ReadonlyArray<Crossing> {
    const crossed = fact.minute > this.minute ? this.end() : []
    if (Math.floor(fact.minute / hourMillis) > Math.floor(this.minute / hourMillis)) this.forget(fact.minute)
    this.minute = fact.minute
    if (!matches(this.rule, fact, this.hours)) return crossed
    const amount = amountOf(this.rule, fact)
    const group = groupOf(this.rule, fact)
    const key = keyOf(group)
    const window = this.open.get(key) ?? { group, minutes: [], total: 0, alerted: undefined }
    this.open.set(key, window)
    const last = window.minutes.at(-1)
    if (last?.minute === fact.minute) last.count += amount
    else window.minutes.push({ minute: fact.minute, count: amount })
    window.total += amount
    this.touched.add(window)
    return crossed
  }

  /** Lets go of groups that no window reaches back to. */
  private forget(minute: number): void {
    for (const [key, { minutes }] of this.open) {
      if ((minutes.at(-1)?.minute ?? 0) <= minute - this.width) this.open.delete(key)
    }
  }

  /** What the minute at hand crossed; called once more after the last fact. */
  end(): ReadonlyArray<Crossing> {
    const crossed: Array<Crossing> = []
    for (const window of this.touched) {
      while ((window.minutes[0]?.minute ?? this.minute) <= this.minute - this.width) {
        window.total -= window.minutes.shift()?.count ?? 0
      }
      const hour = Math.floor(this.minute / hourMillis)
      if (window.total >= this.rule.threshold && window.alerted !== hour) {
        window.alerted = hour
        crossed.push({ ...window.group, minute: this.minute, total: window.total })
      }
    }
    this.touched.clear()
    return crossed
  }
}
