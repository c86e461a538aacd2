/** What keeps a server or the operator from starting, as a person reads it, with the status of the process. */
import { type Config, Schema, SchemaIssue } from "effect"
import * as IsolationCheck from "../postgres/IsolationCheck.ts"
import { variables } from "./Environment.ts"
import { type CommandFailed, failed } from "./Settings.ts"

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** Names the variable and what it is for; never its value, which may be a password. */
const configurationText = ({ cause }: Config.ConfigError): string => {
  if (!Schema.isSchemaError(cause)) return cause.message
  return issuesOf(cause.issue)
    .issues.map((issue) => {
      const name = String(issue.path?.at(-1) ?? "")
      const meaning = variables.find((variable) => variable.name === name)?.meaning ?? "see velocity --help"
      return (process.env[name] ?? "") === ""
        ? `${name} is not set: ${meaning}`
        : `${name} cannot be read: ${issue.message} (${meaning})`
    })
    .join("; ")
}

export const startFailure = (
  error: Config.ConfigError | { readonly _tag: string; readonly message: string }
): CommandFailed =>
  error._tag === "ConfigError"
    ? failed(configurationText(error as Config.ConfigError), 2)
    : failed(error.message, error._tag === "IsolationViolated" ? IsolationCheck.exitCode : 1)
