/**
 * What commands print: tables that line up for people, JSON and YAML for programs.
 *
 * Rows are plain values; a table shows the columns it is told, in that order, and nothing else.
 */
import { Console, Effect } from "effect"
import { Flag } from "effect/cli"
import { displayWidth } from "effect/cli/CliOutput"
import { stringify as toYaml } from "yaml"

export type Format = "table" | "json" | "yaml"

/** `--output table|json|yaml`, table unless said. */
export const outputFlag = Flag.Literals("output", ["table", "json", "yaml"]).pipe(
  Flag.withAlias("o"),
  Flag.withDescription("How to print the answer"),
  Flag.withDefault("table" as Format)
)

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
const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd")

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

/** Prints rows in the format asked for; an empty table says so on its own line. */
export const printRows = <Row>(
  format: Format,
  columns: ReadonlyArray<Column<Row>>,
  rows: ReadonlyArray<Row>,
  empty: string
): Effect.Effect<void> =>
  format === "json"
    ? Console.log(JSON.stringify(rows, null, 2))
    : format === "yaml"
      ? Console.log(toYaml(rows).trimEnd())
      : Effect.suspend(() => Console.log(rows.length === 0 ? empty : table(columns, rows)))
