import type { Answer } from "../../src/records/type/Answer.ts"

/** What an answer says, as text; empty where it says nothing. */
export const textOf = ({ body = "" }: Pick<Answer, "body">): string =>
  typeof body === "string" ? body : Buffer.from(body).toString("utf8")
