/** The bench's one table: each line a figure of ours, what it is measured against, their ratio, and what the ratio must reach. */
import { type Column, table } from "../../src/cli/Output.ts"

export interface Line {
  readonly what: string
  /** Connections or clients at once. */
  readonly clients?: number | undefined
  readonly ours: number
  readonly unit: string
  readonly against: string
  /** In the same unit; undefined for a figure that stands alone. */
  readonly theirs?: number | undefined
  /** What the ratio must reach; undefined for a line that is there to be read. */
  readonly target?: Target | undefined
}

/** What a line must reach: a least ratio, a least figure, or a greatest one. */
export type Target = { readonly ratio: number } | { readonly least: number } | { readonly most: number }

const figure = (value: number): string => value.toLocaleString("en-GB", { maximumFractionDigits: value < 10 ? 2 : 0 })

const ratioOf = ({ ours, theirs }: Line): number | undefined => (theirs === undefined ? undefined : ours / theirs)

const shownTarget = (target: Target): string =>
  "ratio" in target ? `≥ ${target.ratio}` : "least" in target ? `≥ ${figure(target.least)}` : `≤ ${figure(target.most)}`

/** Whether a line reaches its target. */
export const reached = (line: Line): boolean => {
  const { target } = line
  if (target === undefined) return true
  if ("ratio" in target) return (ratioOf(line) ?? 0) >= target.ratio
  return "least" in target ? line.ours >= target.least : line.ours <= target.most
}

const columns: ReadonlyArray<Column<Line>> = [
  { title: "what", cell: (line) => line.what },
  { title: "clients", cell: (line) => (line.clients === undefined ? "" : String(line.clients)), align: "right" },
  { title: "ours", cell: (line) => figure(line.ours), align: "right" },
  { title: "unit", cell: (line) => line.unit },
  { title: "against", cell: (line) => line.against },
  { title: "theirs", cell: (line) => (line.theirs === undefined ? "" : figure(line.theirs)), align: "right" },
  { title: "ratio", cell: (line) => ratioOf(line)?.toFixed(2) ?? "", align: "right" },
  { title: "wanted", cell: (line) => (line.target === undefined ? "" : shownTarget(line.target)), align: "right" },
  { title: "", cell: (line) => (line.target === undefined ? "" : reached(line) ? "ok" : "short") }
]

export const report = (lines: ReadonlyArray<Line>): string => table(columns, lines)
