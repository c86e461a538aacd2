/**
 * Manifests as text to resources, with line and column for everything that is wrong.
 *
 * A scalar without quotes that YAML 1.1 (kubectl) and YAML 1.2 (most others) read differently is refused: `no` is a word
 * here and false there (fine print 24). Documents of other API groups (Namespaces among the samples) are passed over.
 */
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  LineCounter,
  type Node,
  parseAllDocuments,
  parseDocument,
  visit
} from "yaml"
import { decodeResource, identityOf, type Resource } from "../../domain/Resource.ts"

/** A resource and where it stands. */
export interface Located {
  readonly identity: string
  readonly resource: Resource
  readonly file: string
  readonly line: number
  /** Where a pointer into it leads to, or the last key on the way. */
  readonly at: (pointer: string) => { readonly line: number; readonly column: number }
}

/** Something wrong with a file or a document of it. */
export interface ManifestProblem {
  readonly file: string
  readonly line?: number | undefined
  readonly column?: number | undefined
  /** Which resource the document is of, where that could be read. */
  readonly identity?: string | undefined
  readonly message: string
}

/** What a file holds. A file with problems is not complete: what is absent from it may be there. */
export interface ParsedFile {
  readonly resources: ReadonlyArray<Located>
  readonly problems: ReadonlyArray<ManifestProblem>
}

/** `file:line:column: message`, as compilers print it. */
export const renderProblem = ({ column, file, line, message }: ManifestProblem): string =>
  `${[file, line, line === undefined ? undefined : column].filter((part) => part !== undefined).join(":")}: ${message}`

/** A plain scalar's value under a version of YAML, as JSON writes it. */
const readAs = (text: string, version: "1.1" | "1.2"): string => {
  const value: unknown = parseDocument(text, { version, logLevel: "silent" }).toJS()
  return `${value instanceof Date ? "date " : typeof value === "object" ? "" : typeof value} ${String(value)}`
}

/** Whether the two versions of YAML read a plain scalar differently. */
export const isAmbiguous = (text: string): boolean =>
  // a merge key merges in 1.1 alone
  text === "<<" || (/^[-+.0-9=~a-zA-Z]/u.test(text) && text.length <= 64 && readAs(text, "1.1") !== readAs(text, "1.2"))

const stepsOf = (pointer: string): ReadonlyArray<string> =>
  pointer === ""
    ? []
    : pointer
        .slice(1)
        .split("/")
        .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))

/** The node that a pointer leads to, or the last one on the way. */
const nodeAt = (document: Document, pointer: string): Node | undefined => {
  let found: Node | undefined = document.contents ?? undefined
  let node: unknown = found
  for (const step of stepsOf(pointer)) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === step)
      if (pair === undefined) break
      if (isNode(pair.key)) found = pair.key
      node = pair.value
    } else if (isNode(node) && "items" in node) {
      node = (node.items as ReadonlyArray<unknown>)[Number(step)]
      if (isNode(node)) found = node
    } else break
  }
  return found
}

const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined)

/** What a document says it is, before it is judged. */
const claimedIdentity = (value: unknown): string | undefined => {
  const { kind, metadata } = (value ?? {}) as { readonly kind?: unknown; readonly metadata?: Record<string, unknown> }
  const name = text(metadata?.name)
  const type = text(kind)
  return name === undefined || type === undefined
    ? undefined
    : identityOf({ kind: type, metadata: { namespace: text(metadata?.namespace) ?? "velocity-system", name } })
}

const isOurs = (value: unknown): boolean => {
  const version = (value as { readonly apiVersion?: unknown } | null)?.apiVersion
  return typeof version !== "string" || version.startsWith("velocity.sh/")
}

const ambiguitiesIn = (document: Document): ReadonlyArray<{ readonly offset: number; readonly message: string }> => {
  const found: Array<{ readonly offset: number; readonly message: string }> = []
  visit(document, {
    Scalar: (_, node) => {
      const { source } = node
      if (node.type !== "PLAIN" || source === undefined || source === "" || node.tag !== undefined) return
      if (isAmbiguous(source)) {
        found.push({
          offset: node.range?.[0] ?? 0,
          message: `YAML 1.1 and 1.2 read ${source} differently; quote it: "${source}"`
        })
      }
    }
  })
  return found
}

/** Reads a file. Never fails: what is wrong is among the problems. */
export const parseManifests = (file: string, content: string): ParsedFile => {
  const lines = new LineCounter()
  const resources: Array<Located> = []
  const problems: Array<ManifestProblem> = []
  const documents = parseAllDocuments(content, { lineCounter: lines, version: "1.2", logLevel: "silent" })
  for (const document of Array.isArray(documents) ? documents : []) {
    const at = (offset: number) => {
      const { col, line } = lines.linePos(offset)
      return { file, line, column: col }
    }
    if (document.errors.length > 0 || document.warnings.length > 0) {
      for (const { message, pos } of [...document.errors, ...document.warnings]) {
        problems.push({ ...at(pos[0]), message: message.split("\n")[0]?.replace(/ at line .*$/u, "") ?? message })
      }
      continue
    }
    if (document.contents === null || isAlias(document.contents)) continue
    let value: unknown
    try {
      value = document.toJS({ maxAliasCount: 100 })
    } catch {
      problems.push({ ...at(document.range?.[0] ?? 0), message: "it has too many aliases" })
      continue
    }
    if (value === null || !isOurs(value)) continue
    const identity = claimedIdentity(value)
    const ambiguous = ambiguitiesIn(document)
    if (ambiguous.length > 0) {
      problems.push(...ambiguous.map(({ message, offset }) => ({ ...at(offset), identity, message })))
      continue
    }
    const decoded = decodeResource(value)
    if ("faults" in decoded) {
      for (const { detail, pointer } of decoded.faults) {
        const offset = nodeAt(document, pointer)?.range?.[0] ?? document.range?.[0] ?? 0
        problems.push({ ...at(offset), identity, message: pointer === "" ? detail : `${pointer}: ${detail}` })
      }
      continue
    }
    const start = document.contents.range?.[0] ?? 0
    resources.push({
      identity: identityOf(decoded.resource),
      resource: decoded.resource,
      file,
      line: at(start).line,
      at: (pointer) => at(nodeAt(document, pointer)?.range?.[0] ?? start)
    })
  }
  return { resources, problems }
}
