/**
 * Every `VELOCITY_*` variable, for `velocity --help`. A test compares this list with the variables the code reads, so
 * none is missing here and none is described that nothing reads.
 */
export interface Variable {
  readonly name: string
  readonly fallback: string
  readonly meaning: string
}

export const variables: ReadonlyArray<Variable> = [
  {
    name: "VELOCITY_API_DATABASE_URL",
    fallback: "",
    meaning: "how velocity_api reaches Postgres (velocity api, doctor)"
  },
  {
    name: "VELOCITY_OPERATOR_DATABASE_URL",
    fallback: "",
    meaning: "how velocity_operator reaches Postgres (velocity operator)"
  },
  {
    name: "VELOCITY_MIGRATE_DATABASE_URL",
    fallback: "",
    meaning: "the database owner's credentials (velocity migrate)"
  },
  {
    name: "VELOCITY_ROLE_PREFIX",
    fallback: "none",
    meaning: "stands in front of every role where installations share a server (velocity migrate)"
  },
  {
    name: "VELOCITY_LISTEN_URL",
    fallback: "the API's URL",
    meaning: "a direct connection for LISTEN where a pooler stands between"
  },
  { name: "VELOCITY_API_CONNECTIONS", fallback: "16", meaning: "connections of one API replica" },
  {
    name: "VELOCITY_PREPARED",
    fallback: "500",
    meaning: "prepared statements kept per connection; 0 behind PgBouncer"
  },
  { name: "VELOCITY_STATEMENT_TIMEOUT", fallback: "5s", meaning: "when a statement of a request is ended" },
  {
    name: "VELOCITY_OPERATOR_STATEMENT_TIMEOUT",
    fallback: "60s",
    meaning: "when a statement of the operator is ended"
  },
  {
    name: "VELOCITY_OPERATOR_PORT",
    fallback: "none",
    meaning: "where the operator answers /healthz, /readyz and /metrics, at VELOCITY_HOST"
  },
  {
    name: "VELOCITY_WATCH_NAMESPACES",
    fallback: "all",
    meaning: "the namespaces that velocity operator watches in a cluster, a list; velocity-system always"
  },
  { name: "VELOCITY_MAX_TX", fallback: "5min", meaning: "how long a streaming transaction may last" },
  { name: "VELOCITY_HOST", fallback: "127.0.0.1", meaning: "the address that the API listens at" },
  { name: "VELOCITY_PORT", fallback: "8080", meaning: "the port that the API listens at; 0 chooses a free one" },
  { name: "VELOCITY_CORS_ORIGINS", fallback: "none", meaning: "origins that browsers may call from, or *" },
  { name: "VELOCITY_REQUEST_TIMEOUT", fallback: "30s", meaning: "when a request is given up, an import excepted" },
  { name: "VELOCITY_BODY_TIMEOUT", fallback: "10s", meaning: "when a body is given up of which nothing comes" },
  { name: "VELOCITY_PLAN_TIMEOUT", fallback: "10s", meaning: "how long the API waits for the operator to show a plan" },
  { name: "VELOCITY_SHUTDOWN_TIMEOUT", fallback: "20s", meaning: "how long requests may still take when stopping" },
  {
    name: "VELOCITY_PLATFORM_STRATEGY",
    fallback: "platform",
    meaning: "the AuthStrategy whose tokens may hold platform- roles"
  },
  {
    name: "VELOCITY_KEY_ENVIRONMENT",
    fallback: "live",
    meaning: "what API keys say behind vel_, the same for api and operator; keys of another environment are refused"
  },
  { name: "VELOCITY_TOKEN_CACHE", fallback: "10000", meaning: "verified tokens that are remembered" },
  { name: "VELOCITY_REGISTRY_MAX", fallback: "2000", meaning: "compiled record types that a replica holds" },
  {
    name: "VELOCITY_REPLICA",
    fallback: "the host's name and random digits",
    meaning: "what this API replica is called in conditions; unique among those that are alive, such as its pod's name"
  },
  {
    name: "VELOCITY_REGISTRY_POLL",
    fallback: "30s",
    meaning: "how often the registry is read again without being told"
  },
  {
    name: "VELOCITY_AUDIT_KEY_FILE",
    fallback: "none: the log is not sealed",
    meaning: "the file with the key that checkpoints are signed with (velocity operator, audit restore-note)"
  },
  { name: "VELOCITY_AUDIT_KEY", fallback: "", meaning: "the same key as text, where there is no file" },
  {
    name: "VELOCITY_AUDIT_KEY_NEXT_FILE",
    fallback: "",
    meaning: "a second key while keys are changed: both sign"
  },
  { name: "VELOCITY_AUDIT_KEY_NEXT", fallback: "", meaning: "the same as text" },
  { name: "VELOCITY_AUDIT_PUBLISH_DIR", fallback: "none", meaning: "a folder that checkpoints are published to" },
  {
    name: "VELOCITY_AUDIT_WITNESSES",
    fallback: "none",
    meaning: "C2SP witnesses that cosign checkpoints: URL, or URL KEY with its verifier key, with commas between"
  },
  {
    name: "VELOCITY_AUDIT_OUTSIDE_CHECKPOINT",
    fallback: "none",
    meaning: "a file with a checkpoint that the log must extend, or nothing is signed"
  },
  { name: "VELOCITY_IMPORT_MAX_RECORDS", fallback: "1000000", meaning: "records of one import" },
  {
    name: "VELOCITY_RETENTION_AUDIT",
    fallback: "what is in force; at first everything is kept",
    meaning: "months that the audit log is kept for; may be lengthened, not shortened"
  },
  {
    name: "VELOCITY_RETENTION_HISTORY",
    fallback: "what is in force; at first everything is kept",
    meaning: "months that history is kept whole; the last state of each record stays"
  },
  {
    name: "VELOCITY_RETIRE",
    fallback: "keep",
    meaning: "what becomes of a month that is past that: drop, keep, export"
  },
  {
    name: "VELOCITY_EXPORT_DIR",
    fallback: "",
    meaning: "the folder that months are exported to, with VELOCITY_RETIRE=export"
  },
  {
    name: "VELOCITY_ANOMALY_RULES",
    fallback: "the built-in rules",
    meaning: "a file of rules for the anomaly scanner, which change or join the built-in ones (velocity operator, dev)"
  },
  {
    name: "VELOCITY_ANOMALY_WEBHOOKS",
    fallback: "none",
    meaning: "a file of endpoints that alerts are sent to, with their secrets (velocity operator, dev)"
  },
  {
    name: "VELOCITY_ANOMALY_GIVE_UP",
    fallback: "24h",
    meaning: "when an alert that an endpoint does not take is given up"
  },
  {
    name: "VELOCITY_DATA",
    fallback: ".velocity",
    meaning: "the data folder of velocity dev; without a cluster minted API keys are put into its folder keys"
  },
  {
    name: "VELOCITY_API_URL",
    fallback: "the running velocity dev",
    meaning: "which API record and audit commands speak to"
  },
  { name: "VELOCITY_TOKEN", fallback: "", meaning: "the bearer token of record and audit commands" }
]

export const exitCodes: ReadonlyArray<readonly [number, string]> = [
  [0, "done; or stopped by SIGINT or SIGTERM"],
  [1, "failed; audit verify: tampered; audit verify-proof: refuted; doctor: something to repair"],
  [2, "wrong usage, or could not tell"],
  [69, "no Node 24 to run on"],
  [78, "the isolation check refused to start: the database could let the API past row-level security"]
]

/** The two lists as lines for the help page. */
export const environmentHelp = (): string => {
  const width = Math.max(...variables.map((variable) => variable.name.length))
  return [
    "Environment:",
    ...variables.map(
      ({ fallback, meaning, name }) =>
        `  ${name.padEnd(width)}  ${meaning}${fallback === "" ? "" : ` (default: ${fallback})`}`
    ),
    "",
    "Exit status:",
    ...exitCodes.map(([code, meaning]) => `  ${String(code).padStart(2)}  ${meaning}`)
  ].join("\n")
}
