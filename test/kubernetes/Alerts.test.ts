/**
 * What on-call is told, judged by Prometheus' own engine over what running processes export: no alert is wrong, none
 * names what nobody exports, none fires while all is well, each fires when it should, and each has its page.
 */
import { readFileSync } from "node:fs"
import { mkdtemp, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { stringify } from "yaml"
import { type Ran, type Running, run, start } from "../cli/Run.ts"
import { freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { type Installed, install, until } from "./Installed.ts"
import { containerOf, find, kustomized, type Workload } from "./Kustomized.ts"
import { definition, type Manifest, namespacesOf, parents, root } from "./Manifests.ts"
import { ask, type Selector, type Series, seriesOf } from "./PromRules.ts"

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly labels: { readonly severity: string }
  readonly annotations: { readonly summary: string; readonly runbook_url: string }
}
interface PrometheusRule extends Manifest {
  readonly spec: { readonly groups: ReadonlyArray<{ readonly name: string; readonly rules: ReadonlyArray<Rule> }> }
}
interface ServiceMonitor extends Manifest {
  readonly spec: {
    readonly selector: { readonly matchLabels: Readonly<Record<string, string>> }
    readonly endpoints: ReadonlyArray<{ readonly port: string; readonly path: string; readonly honorLabels?: boolean }>
  }
}
interface Panel {
  readonly title: string
  readonly description?: string
  readonly targets?: ReadonlyArray<{ readonly expr: string }>
}

const objects = kustomized("k8s/overlays/example")
const file = find<PrometheusRule>(objects, "PrometheusRule", "velocity")
const rules = file.spec.groups.flatMap((group) => group.rules)
const dashboard = JSON.parse(
  find<Manifest & { readonly data: Readonly<Record<string, string>> }>(objects, "ConfigMap", "velocity-dashboard").data[
    "velocity.json"
  ] ?? ""
) as { readonly panels: ReadonlyArray<Panel> }
const panels = dashboard.panels.flatMap(({ targets, title }) =>
  (targets ?? []).map(({ expr }) => ({ title, expr: expr.replaceAll("$__rate_interval", "5m") }))
)
const page = readFileSync(join(root, "docs/operations.md"), "utf8")

/** What Prometheus puts on every series of a ServiceMonitor's target. */
const targetLabels = ["namespace", "pod", "job", "service", "endpoint", "instance", "container"]

const scope = Scope.makeUnsafe()
let cluster: Installed
let database: TestDatabase
const processes: Array<Running> = []
let exported: { readonly api: ReadonlyArray<Series>; readonly operator: ReadonlyArray<Series> }

const nameOf = ({ labels }: Series): string => labels.__name__ ?? ""
const valueOf = (series: ReadonlyArray<Series>, name: string): number =>
  Math.max(...series.filter((one) => nameOf(one) === name).map(({ values }) => values[0] ?? Number.NaN))

beforeAll(async () => {
  cluster = await install()
  database = await Effect.runPromise(freshDatabase.pipe(Scope.provide(scope)) as Effect.Effect<TestDatabase>)
  const folder = await mkdtemp(join(cluster.folder, "alerts-"))
  const webhooks = join(folder, "webhooks.yaml")
  const secret = join(folder, "secret")
  await writeFile(secret, `whsec_${Buffer.alloc(32, 7).toString("base64")}\n`)
  await writeFile(webhooks, stringify([{ name: "pager", url: "https://127.0.0.1:1/hook", secretFile: secret }]))
  const key = join(folder, "audit.key")
  expect((await run(["audit", "keygen", "--name", "test.example/alerts", "--out", key])).code).toBe(0)

  const heard = { api: "", operator: "" }
  const started = (name: "api" | "operator", env: Readonly<Record<string, string>>) => {
    const running = start([name], env)
    processes.push(running)
    for (const stream of [running.process.stdout, running.process.stderr]) {
      stream?.on("data", (text: string) => (heard[name] += text))
    }
    return running
  }
  const operator = started("operator", {
    KUBECONFIG: cluster.kubeconfig,
    VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl,
    VELOCITY_OPERATOR_PORT: "0",
    VELOCITY_AUDIT_KEY_FILE: key,
    VELOCITY_AUDIT_PUBLISH_DIR: join(folder, "published"),
    VELOCITY_ANOMALY_WEBHOOKS: webhooks
  })
  const api = started("api", { VELOCITY_API_DATABASE_URL: database.apiUrl, VELOCITY_PORT: "0" })
  await Promise.all([operator.says("health and metrics at http://"), api.says("listening at http://")])
  const place = (text: string): string => /at (http:\/\/127\.0\.0\.1:\d+)/u.exec(text)?.[1] ?? ""
  const metrics = async (name: "api" | "operator") => {
    const answer = await fetch(`${place(heard[name])}/metrics`)
    return seriesOf(await answer.text())
  }
  await cluster.apply([...namespacesOf(database.org), ...parents(database.org), definition(database.org, "thing")])
  const wanted = new Set(
    ask({ expressions: [...rules, ...panels].map(({ expr }) => expr) }).taken.flatMap(({ selectors }) =>
      selectors.map(({ metric }) => metric)
    )
  )
  // asked once: more refusals would be an anomaly
  await fetch(`${place(heard.api)}/api/me`)
  await until(
    "all that is looked at is exported, and the definition is served",
    async () => {
      exported = { api: await metrics("api"), operator: await metrics("operator") }
      const names = new Set([...exported.api, ...exported.operator].map(nameOf))
      const { operator: told } = exported
      const sealed = valueOf(told, "velocity_audit_checkpoint_size")
      const isReady = told.some(
        ({ labels, values }) => labels.kind === "SchemaDefinition" && labels.state === "ready" && values[0] === 1
      )
      return (
        [...wanted].every((name) => names.has(name)) &&
        isReady &&
        sealed === valueOf(told, "velocity_audit_published_size")
      )
      // the first scan and the first verification come a minute after the start
    },
    150_000
  ).catch((cause: Error) => {
    const names = new Set([...exported.api, ...exported.operator].map(nameOf))
    throw new Error(`${cause.message}; missing: ${[...wanted].filter((name) => !names.has(name))}\n${heard.operator}`)
  })
}, 240_000)

afterAll(async () => {
  for (const { process: one } of processes) one.kill("SIGTERM")
  await Promise.all(processes.map(({ ended }) => ended))
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await cluster?.stop()
})

/** As Prometheus has them: of two API pods and two operators, of which one leads. */
const scraped = (): ReadonlyArray<Series> => {
  const of = (pod: string, series: ReadonlyArray<Series>) =>
    series.map(({ labels, values }) => ({ labels: { namespace: "velocity-system", pod, ...labels }, values }))
  const standby = exported.operator.filter((one) => nameOf(one) === "leader_election_master_status")
  return [
    ...of("api-1", exported.api),
    ...of("api-2", exported.api),
    ...of("operator-1", exported.operator),
    ...of(
      "operator-2",
      standby.map((one) => ({ ...one, values: [0] }))
    )
  ]
}

const step = 60
const hours = 4
const at = hours * 3600

/** What a fault does to a series: its value at a moment, in seconds; undefined leaves it. */
type Fault = (labels: Readonly<Record<string, string>>, now: number) => ((moment: number) => number) | undefined

/** The alerts that fire after four hours, in all of which the fault was there, or nothing. */
const firing = (
  fault: Fault = () => undefined,
  gone: (labels: Readonly<Record<string, string>>) => boolean = () => false
) => {
  const now = Date.now() / 1000
  const series = scraped()
    .filter(({ labels }) => !gone(labels))
    .map(({ labels, values: [value = 0] }) => {
      const told = fault(labels, now)
      const isTime =
        (labels.__name__ ?? "").endsWith("timestamp_seconds") ||
        labels.__name__ === "velocity_anomaly_last_scan_seconds"
      return {
        labels,
        values: Array.from({ length: at / step + 1 }, (_, i) =>
          (told ?? (() => (isTime ? at - (now - value) : value)))(i * step)
        )
      }
    })
  const { results } = ask({ evaluations: rules.map(({ expr }) => ({ expr, at, step, series })) })
  for (const { error } of results) expect(error).toBeUndefined()
  return rules.filter((_, i) => (results[i]?.samples ?? []).length > 0).map(({ alert }) => alert)
}

const is =
  (name: string, value: number | ((moment: number) => number), more: Readonly<Record<string, string>> = {}): Fault =>
  (labels) =>
    labels.__name__ === name && Object.entries(more).every(([key, wanted]) => labels[key] === wanted)
      ? typeof value === "number"
        ? () => value
        : value
      : undefined
const grows = (perSecond: number) => (moment: number) => moment * perSecond
const rises = (moment: number) => (moment > at - 600 ? 1 : 0)

/** What must be wrong for an alert to fire; `also` fire with it. */
const faults: Readonly<
  Record<
    string,
    {
      readonly fault?: Fault
      readonly gone?: (labels: Readonly<Record<string, string>>) => boolean
      readonly also?: ReadonlyArray<string>
    }
  >
> = {
  VelocityApiDown: {
    fault: is("velocity_ready", 0, { check: "postgres" }),
    also: ["VelocityApiNotReady"]
  },
  VelocityApiNotReady: { fault: is("velocity_ready", 0, { check: "running", pod: "api-2" }) },
  VelocityIsolationViolated: { fault: is("velocity_isolation_violations", 1, { pod: "api-1" }) },
  VelocityRegistryStale: { fault: is("velocity_registry_age_seconds", Number.MAX_VALUE, { pod: "api-2" }) },
  VelocityErrors: {
    // the 401 of the API's own answers, taken for failures
    fault: (labels) => (labels.__name__ === "velocity_http_requests_total" ? grows(1) : undefined)
  },
  VelocitySlow: {
    fault: (labels) =>
      labels.__name__?.startsWith("velocity_http_request_duration_seconds") === true && labels.route === "/api/me"
        ? grows(labels.__name__.endsWith("_bucket") && Number(labels.le) <= 2.5 ? 0.5 : 1)
        : undefined
  },
  VelocityConnectionsExhausted: { fault: is("velocity_pool_waiting", 3, { pod: "api-1" }) },
  VelocityNoLeader: { fault: is("leader_election_master_status", 0) },
  VelocityTwoLeaders: { fault: is("leader_election_master_status", 1) },
  VelocityWatchSilent: {
    fault: is("velocity_watch_heard_timestamp_seconds", 0, { path: "/apis/velocity.sh/v1/domains" })
  },
  VelocityResourcesStalled: { fault: is("velocity_resources", 1, { state: "stalled", kind: "SchemaDefinition" }) },
  VelocityQueueDeep: { fault: is("workqueue_depth", 101) },
  VelocityReconcileFailing: { fault: is("workqueue_retries_total", grows(0.1)) },
  VelocityOrphans: { fault: is("velocity_orphans", 1) },
  VelocityPartitionsShort: { fault: is("velocity_partition_horizon_months", 0, { parent: "event_log" }) },
  VelocityPartitionFaults: { fault: is("velocity_partition_faults", 1) },
  VelocityAuditTampered: { fault: is("velocity_audit_verified_problems", 1) },
  VelocityAuditUnverified: { fault: is("velocity_audit_verified_timestamp_seconds", 0) },
  VelocityLogRolledBack: { fault: is("velocity_audit_sealer_state", 1, { state: "rolled_back" }) },
  VelocitySealerBehind: { fault: is("velocity_audit_sealed_timestamp_seconds", at - 400) },
  VelocityCheckpointsUnpublished: { fault: is("velocity_audit_published_size", 0) },
  VelocityScannerStopped: { fault: is("velocity_anomaly_last_scan_seconds", at - 400) },
  VelocityAlertsUndelivered: { fault: is("velocity_anomaly_deliveries_pending", 2) },
  VelocityAlertsGivenUp: { fault: is("velocity_anomaly_deliveries_total", rises, { result: "given_up" }) }
}

describe("alerts", () => {
  it("are rules as Prometheus takes them, each with a severity and its page", () => {
    expect(ask({ rules: stringify(file.spec) }).errors).toEqual([])
    expect(rules.length).toBeGreaterThan(20)
    for (const { alert, annotations, labels } of rules) {
      expect(["critical", "warning"]).toContain(labels.severity)
      expect(annotations.summary.length).toBeGreaterThan(10)
      expect(annotations.runbook_url).toBe(`docs/operations.md#${alert.toLowerCase()}`)
    }
    const headings = [...page.matchAll(/^### (Velocity\w+)$/gmu)].map(([, name]) => name)
    expect(headings).toEqual(rules.map(({ alert }) => alert))
  })

  it("and panels look at what is exported, by labels and values that there are", () => {
    const looked = [...rules.map(({ alert, expr }) => ({ title: alert, expr })), ...panels]
    const { taken } = ask({ expressions: looked.map(({ expr }) => expr) })
    const series = [...exported.api, ...exported.operator]
    const wrong: Array<string> = []
    const checked = (title: string, { matchers, metric }: Selector) => {
      const of = series.filter((one) => nameOf(one) === metric)
      if (of.length === 0) wrong.push(`${title}: nobody exports ${metric}`)
      for (const [label, operator, value] of matchers) {
        const values = new Set(of.flatMap(({ labels }) => labels[label] ?? []))
        if (values.size === 0) wrong.push(`${title}: ${metric} has no label ${label}`)
        const alternatives = operator === "=" ? [value] : /^[a-z_|]+$/u.test(value) ? value.split("|") : []
        for (const one of alternatives) if (!values.has(one)) wrong.push(`${title}: ${metric} has no ${label}="${one}"`)
      }
    }
    for (const [i, { error, grouping, selectors }] of taken.entries()) {
      const { title = "" } = looked[i] ?? {}
      if (error !== undefined) wrong.push(`${title}: ${error}`)
      for (const one of selectors) checked(title, one)
      const labels = new Set(
        series
          .filter((one) => selectors.some(({ metric }) => metric === nameOf(one)))
          .flatMap((one) => Object.keys(one.labels))
      )
      for (const one of grouping) {
        if (!labels.has(one) && !targetLabels.includes(one)) wrong.push(`${title}: nothing has a label ${one}`)
      }
    }
    expect(wrong).toEqual([])
  })

  it("fire none while all is well", () => {
    expect(firing()).toEqual([])
  })

  it("have a fault each", () => {
    expect(Object.keys(faults)).toEqual(rules.map(({ alert }) => alert))
  })

  for (const [alert, { also = [], fault, gone }] of Object.entries(faults)) {
    it(`${alert} fires when it should, and no other`, () => {
      if (alert === "VelocityErrors") {
        // nothing failed here: some of what was answered is taken for failures
        exported = {
          ...exported,
          api: exported.api.map(({ labels, values }) => ({
            labels: labels.__name__ === "velocity_http_requests_total" ? { ...labels, status: "500" } : labels,
            values
          }))
        }
      }
      expect(firing(fault, gone)).toEqual(
        rules.map((one) => one.alert).filter((one) => one === alert || also.includes(one))
      )
    })
  }

  it("tell that nobody is there to ask", () => {
    const without = (prefix: string) => firing(undefined, ({ pod }) => pod?.startsWith(prefix) === true)
    expect(without("api")).toEqual(["VelocityApiDown"])
    expect(without("operator")).toEqual(["VelocityNoLeader", "VelocityAuditUnverified", "VelocityScannerStopped"])
  })

  it("tell of a leader that does not reach its database", () => {
    expect(firing(undefined, ({ __name__: name }) => name === "velocity_resources")).toEqual(["VelocityNoLeader"])
  })

  it("tell of a sealer that has never sealed", () => {
    const never = firing(undefined, ({ __name__: name }) => name === "velocity_audit_sealed_timestamp_seconds")
    expect(never).toEqual(["VelocitySealerBehind"])
  })

  it("tell of a log that lost entries, and of a month that is not as it was", () => {
    expect(firing(is("velocity_audit_broken_lanes", 1))).toEqual(["VelocityAuditTampered"])
    expect(firing(is("velocity_partition_refusals_total", rises, { parent: "audit_log" }))).toEqual([
      "VelocityAuditTampered"
    ])
  })

  it("name alerts alone in the dashboard's descriptions, and its panels can be drawn", () => {
    for (const { description = "" } of dashboard.panels) {
      for (const name of description.split(", ").filter((one) => one !== "")) {
        expect(rules.map(({ alert }) => alert)).toContain(name)
      }
    }
    const series = scraped().map(({ labels, values: [value = 0] }) => ({
      labels,
      values: Array.from({ length: 100 }, () => value)
    }))
    const { results } = ask({ evaluations: panels.map(({ expr }) => ({ expr, at: 99 * step, step, series })) })
    for (const [i, { error }] of results.entries()) expect(error, panels[i]?.title).toBeUndefined()
  })

  it("are fed by ServiceMonitors that lead to ports of the base, and keep the metrics' own labels", () => {
    for (const [name, series] of Object.entries(exported)) {
      const workload = find<Workload>(objects, "Deployment", `velocity-${name}`)
      const monitor = find<ServiceMonitor>(objects, "ServiceMonitor", `velocity-${name}`)
      const service = find<
        Manifest & {
          readonly spec: { readonly ports: ReadonlyArray<{ readonly name: string; readonly targetPort: string }> }
        }
      >(objects, "Service", `velocity-${name}`)
      expect(service.metadata.labels).toMatchObject(monitor.spec.selector.matchLabels)
      const [endpoint] = monitor.spec.endpoints
      const port = service.spec.ports.find((one) => one.name === endpoint?.port)
      expect(containerOf(workload).ports?.map((one) => one.name)).toContain(port?.targetPort)
      expect(endpoint?.path).toBe("/metrics")
      const shadowed = series.some(({ labels }) => Object.keys(labels).some((one) => targetLabels.includes(one)))
      if (shadowed) expect(endpoint?.honorLabels).toBe(true)
    }
  })
})

describe("their pages", () => {
  const section = page.slice(page.indexOf("\n## Alerts\n"), page.indexOf("\n## Evidence"))
  const blocks = (language: string) =>
    [...section.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, "gu"))].map(([, text = ""]) => text.trim())

  it("say what it means, who notices, what to type and when it is over", () => {
    for (const text of section.split("\n### ").slice(1)) {
      expect(text).toMatch(/\*Noticed by\*|\*Over\*/u)
      expect(text).toContain("*Over*")
      expect(text, text.split("\n")[0]).toMatch(/```(sh|sql)\n/u)
    }
  })

  it("type velocity's own commands and flags", async () => {
    const typed = [...new Set(blocks("sh").flatMap((block) => block.split("\n")))].flatMap(
      (line) => /(?:^|-- )velocity (.*)$/u.exec(line)?.[1] ?? []
    )
    expect(typed.length).toBeGreaterThan(6)
    const pages = new Map<string, Ran>()
    for (const line of typed) {
      const words = line.replace(/"[^"]*"/gu, "text").split(" ")
      const command = words.filter(
        (word, i) => !word.startsWith("--") && words.slice(0, i).every((one) => !one.startsWith("--"))
      )
      const told = pages.get(command.join(" ")) ?? (await run([...command, "--help"]))
      pages.set(command.join(" "), told)
      const { code, out } = told
      expect(code, line).toBe(0)
      expect(out).toContain(`velocity ${command.join(" ")}`)
      for (const flag of words.filter((word) => word.startsWith("--")))
        expect(out, line).toMatch(new RegExp(`${flag}[ ,]`, "u"))
    }
  })

  it("type kubectl lines that kubectl takes on a cluster with Velocity", async () => {
    await cluster.ok(["apply", "--server-side", "-k", join(root, "k8s/base")])
    const typed = [...new Set(blocks("sh").flatMap((block) => block.split("\n")))].filter((line) =>
      line.startsWith("kubectl ")
    )
    expect(typed.length).toBeGreaterThan(10)
    for (const line of typed) {
      // there are no pods here, no kinds of the Prometheus operator, and nothing is to be changed
      const words = line.split(" -- ")[0]?.split(" ").slice(1) ?? []
      const [verb = ""] = words
      if (["get", "describe", "auth"].includes(verb)) {
        const { err } = await cluster.kubectl(words)
        expect(err.replace(/No resources found.*\n?/u, ""), line).toBe("")
      } else if (["apply", "delete"].includes(verb)) {
        const args = words.map((word) => (word.startsWith("k8s/") ? join(root, "k8s/base") : word))
        await cluster.ok([...args, "--dry-run=server"])
      } else {
        const { code, out } = await cluster.kubectl([verb, "--help"])
        expect(code, line).toBe(0)
        for (const [, flag = ""] of line.matchAll(/ (--[a-z-]+)/gu)) expect(out, line).toContain(`${flag}=`)
        const [, kind, name] = /(deploy(?:ment)?)\/([a-z-]+)/u.exec(line) ?? []
        if (kind !== undefined) find(objects, "Deployment", String(name))
      }
    }
  })

  it("ask Postgres what the operator may ask", async () => {
    const statements = blocks("sql").flatMap((block) => block.split(";").filter((one) => one.trim() !== ""))
    expect(statements.length).toBeGreaterThan(5)
    for (const one of statements) await Effect.runPromise(query(database.operatorUrl, one))
  })
})
