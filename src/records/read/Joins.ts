/**
 * The joins of one request, and the cursors that its answer leaves to be made: Postgres says in to-many includes where the
 * next page would begin, by a mark that only this request knows, and the mark becomes a cursor on the way out.
 */
import { randomUUID } from "node:crypto"
import type { Caller } from "../../domain/Identity.ts"
import type { Query } from "../../domain/Query.ts"
import type { Bind } from "../type/Parameters.ts"
import type { RecordType } from "../type/RecordType.ts"
import type { CursorBox, CursorScope } from "./Cursor.ts"
import { allIncluded, type Included, IncludeSql, type Shown } from "./Include.ts"
import { fieldsIdentity, pageIdentity } from "./QuerySql.ts"
import { rowAlias } from "./ReadSql.ts"

/** What a cursor of a caller's query is bound to. */
export const scopeOf = (
  type: RecordType,
  caller: Caller,
  query: Pick<Query, "deleted" | "sort" | "where">
): CursorScope => ({
  actor: caller.identity.actor,
  query: pageIdentity(type, query),
  fields: fieldsIdentity(type, query)
})

/** See the module. */
export class Joins {
  /** Nobody can have stored this text before the request was made. */
  private marker = ""
  /** Whether to-many includes leave marks in the text. */
  readonly marks: boolean
  private readonly nodes: ReadonlyArray<Included>
  private readonly caller: Caller
  private readonly shown: Shown

  constructor(caller: Caller, shown: Shown) {
    this.caller = caller
    this.shown = shown
    this.nodes = allIncluded(shown.included)
    this.marks = this.nodes.some((node) => node.many)
    if (this.marks) this.marker = randomUUID()
  }

  readonly joining = (bind: Bind) => {
    let place: string | undefined
    const marker = () => (place ??= bind(this.marker))
    const numbers = new Map(this.nodes.map((node, index) => [node, index]))
    return new IncludeSql(this.caller, bind, marker, numbers).join(this.shown.included, rowAlias)
  }

  /** Puts cursors in the places of the marks that to-many includes left. */
  sealed(body: string, box: CursorBox): string {
    if (!this.marks) return body
    return body.replaceAll(
      new RegExp(`${this.marker}/(\\d+)/([0-9a-f-]+)/([0-9a-f-]+)/`, "g"),
      (_, index, parent, last) => {
        const node = this.nodes[Number(index)] as Included
        const query = { where: { field: node.ref.name, op: "eq", value: parent }, sort: [] } as const
        return box.seal(scopeOf(node.type, this.caller, query), [last])
      }
    )
  }
}
