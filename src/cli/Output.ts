/**
 * What commands print: tables that line up for people, JSON and YAML for programs.
 *
 * Rows are plain values; a table shows the columns it is told, in that order, and nothing else.
 */
import { Console, Effect } from "effect"
import { Flag } from "effect/cli"
import { displayWidth } from "effect/cli/CliOutput"
import { type ScalarTag, stringify } from "yaml"
import { ExactNumber, type ExactValue, isExactObject } from "../domain/ExactJson.ts"

export type Format = "table" | "json" | "yaml"

/** `--output table|json|yaml`, table unless said. */
export const outputFlag = Flag.Literals("output", ["table", "json", "yaml"]).pipe(
  Flag.withAlias("o"),
  Flag.withDescription("How to print the answer"),
  Flag.withDefault("table" as Format)
)

/** `--limit N`, 20 unless said. */
export const limitFlag = Flag.Int("limit").pipe(Flag.withDescription("At most so many"), Flag.withDefault(20))

export interface Column<Row> {
  readonly title: string
  readonly cell: (row: Row) => string
  /** Numbers read better from the right. */
  readonly align?: "left" | "right"
}

const pad = (text: string, width: number, align: "left" | "right"): string => {
  const fill = " ".repeat(Math.max(0, width - displayWidth(text)))
  return align === "right" ? fill + text : text + fill
}

/** Control characters would let a value draw on the reader's terminal: they are shown as the replacement sign. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
export const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd")

/** Lines of a table whose columns line up, wide characters counted as two. */
export const table = <Row>(columns: ReadonlyArray<Column<Row>>, rows: ReadonlyArray<Row>): string => {
  const cells = rows.map((row) => columns.map((column) => printable(column.cell(row))))
  const widths = columns.map((column, index) =>
    Math.max(displayWidth(column.title), ...cells.map((row) => displayWidth(row[index] ?? "")))
  )
  const line = (texts: ReadonlyArray<string>) =>
    texts
      .map((text, index) => pad(text, widths[index] ?? 0, columns[index]?.align ?? "left"))
      .join("  ")
      .trimEnd()
  return [line(columns.map((column) => column.title.toUpperCase())), ...cells.map(line)].join("\n")
}

/** Numbers by their digits, as they came: a float would round them. */
const exactNumber: ScalarTag = {
  tag: "tag:yaml.org,2002:float",
  default: true,
  identify: (value) => value instanceof ExactNumber,
  resolve: (text) => new ExactNumber(text),
  stringify: (item) => String(item.value)
}

/** A value for programs, on the lines of its format. */
export const document = (format: "json" | "yaml", value: unknown): string =>
  format === "json"
    ? JSON.stringify(value, null, 2)
    : stringify(value, { customTags: (tags) => [exactNumber, ...tags], keepUndefined: false }).trimEnd()

/** Prints rows in the format asked for; an empty table says so on its own line. */
export const printRows = <Row>(
  format: Format,
  columns: ReadonlyArray<Column<Row>>,
  rows: ReadonlyArray<Row>,
  empty: string
): Effect.Effect<void> =>
  format !== "table"
    ? Console.log(document(format, rows))
    : Effect.suspend(() => Console.log(rows.length === 0 ? empty : table(columns, rows)))

/** Says on stderr, where it disturbs no program, that a page is not all there is. */
export const hintOfMore = (page: ExactValue, shown: number): Effect.Effect<void> =>
  isExactObject(page) && typeof page.next_cursor === "string"
    ? Console.error(`the first ${shown}; there are more: say --limit N`)
    : Effect.void
