/** Prometheus' own rule format and query engine (promrules, which `npm run envtest` builds). */
import { spawnSync } from "node:child_process"
import { join } from "node:path"

export interface Series {
  readonly labels: Readonly<Record<string, string>>
  /** One sample each step, from time 0. */
  readonly values: ReadonlyArray<number>
}

export interface Asked {
  /** A rule file: groups of rules. */
  readonly rules?: string
  readonly expressions?: ReadonlyArray<string>
  readonly evaluations?: ReadonlyArray<{
    readonly expr: string
    /** Seconds. */
    readonly at: number
    readonly step: number
    readonly series: ReadonlyArray<Series>
  }>
}

export interface Selector {
  readonly metric: string
  readonly matchers: ReadonlyArray<readonly [label: string, operator: string, value: string]>
}

export interface Said {
  /** What is wrong with the rules, templates and all. */
  readonly errors: ReadonlyArray<string>
  readonly taken: ReadonlyArray<{
    readonly error?: string
    readonly selectors: ReadonlyArray<Selector>
    readonly grouping: ReadonlyArray<string>
  }>
  readonly results: ReadonlyArray<{
    readonly error?: string
    readonly samples?: ReadonlyArray<{ readonly labels: Readonly<Record<string, string>>; readonly value: number }>
  }>
}

export const ask = (asked: Asked): Said => {
  const program = join(process.env.KUBEBUILDER_ASSETS ?? "", "promrules")
  const { error, status, stderr, stdout } = spawnSync(program, { input: JSON.stringify(asked), encoding: "utf8" })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`promrules: ${stderr}`)
  return JSON.parse(stdout) as Said
}

/** Prometheus' text format, a series a line. */
export const seriesOf = (text: string): ReadonlyArray<Series> =>
  text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [, name = "", labels = "", value = ""] = line.match(/^([\w:]+)(?:\{(.*)\})? (\S+)$/u) ?? []
      if (name === "") throw new Error(`no line of metrics: ${line}`)
      const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/gu)].map(([, key = "", said = ""]) => [key, said])
      return { labels: { __name__: name, ...Object.fromEntries(pairs) }, values: [Number(value)] }
    })
