/** Files of rules and endpoints: what is read, and how what is wrong with them is told. And the signature's own vector. */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"
import { describe, expect } from "vitest"
import { anomalySettings } from "../../src/operator/anomaly/AnomalySettings.ts"
import { secretKey, signed } from "../../src/operator/anomaly/WebhookSignature.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-anomaly-"))),
  (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
)

/** The settings of files with these texts. */
const settingsOf = Effect.fnUntraced(function* (texts: Readonly<Record<string, string>>) {
  const made = yield* folder
  const variables: Record<string, string> = {}
  for (const [name, text] of Object.entries(texts)) {
    const file = join(made, name)
    yield* Effect.promise(() => writeFile(file, text.replaceAll("FOLDER", made)))
    if (name === "rules") variables.VELOCITY_ANOMALY_RULES = file
    if (name === "webhooks") variables.VELOCITY_ANOMALY_WEBHOOKS = file
  }
  return yield* Effect.provide(anomalySettings, ConfigProvider.layer(ConfigProvider.fromUnknown(variables)))
})

const messageOf = (texts: Readonly<Record<string, string>>) =>
  Effect.map(Effect.flip(settingsOf(texts)), ({ message }) => message.replace(/\/\S*velocity-anomaly-\S*?(?=\/)/gu, ""))

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

describe("settings of the anomaly scanner", () => {
  it.effect("are the built-in rules and no endpoint, where nothing is said", () =>
    Effect.gen(function* () {
      const { endpoints, giveUp, rules } = yield* settingsOf({})
      expect([endpoints, giveUp]).toEqual([[], 86_400_000])
      expect(rules.map(({ name }) => name)).toEqual([
        "bulk_reader",
        "after_hours",
        "repeated_denials",
        "chain_broken",
        "write_rate",
        "delete_rate"
      ])
    })
  )

  it.effect("take rules that change a built-in one or add another", () =>
    Effect.gen(function* () {
      const { rules } = yield* settingsOf({
        rules: `- { name: bulk_reader, threshold: 500 }
- { name: after_hours, enabled: false }
- { name: logins, title: Logins, severity: info, match: { actions: [login], chains: ["acme/*"] }, window: 2h, threshold: 7 }
`
      })
      const found = (name: string) => rules.find((rule) => rule.name === name)
      expect(found("bulk_reader")).toMatchObject({ threshold: 500, count: "records", window: "10m" })
      expect(found("after_hours")).toMatchObject({ enabled: false })
      expect(found("logins")).toMatchObject({ count: "entries", groupBy: ["chain", "actor"], source: "entries" })
      expect(rules.length).toBe(7)
    })
  )

  it.effect("tell every fault by its rule and its field", () =>
    Effect.gen(function* () {
      const message = yield* messageOf({
        rules: `- { name: bulk_reader, threshold: 0 }
- { name: mine, title: Mine, severity: bad, threshold: 1, widnow: 5m }
- { title: Nobody, severity: info, threshold: 1 }
- { name: slow, title: Slow, severity: info, threshold: 1, window: 25h }
- { name: chain_broken, hours: outside_working_hours, groupBy: [actor] }
- { name: delete_rate, threshold: 1 }
- { name: delete_rate, threshold: 2 }
`
      })
      for (const text of [
        "VELOCITY_ANOMALY_RULES (/rules): rule bulk_reader: /threshold ",
        "rule mine: /severity must be one of info, warning, critical",
        "rule mine: /widnow there is no key widnow here; did you mean window?",
        "rule 3: /name is missing",
        "rule slow: /window must be 1m to 24h, such as 5m or 2h",
        "rule chain_broken: /hours is not for a rule over the verification",
        "rule chain_broken: /groupBy is chain alone",
        "rule delete_rate: /name is there twice"
      ]) {
        expect(message).toContain(text)
      }
      expect(yield* messageOf({ rules: "name: x" })).toContain("it must be a list of rules")
      expect(yield* messageOf({ rules: "- [" })).toContain("VELOCITY_ANOMALY_RULES (/rules): ")
    })
  )

  it.effect("take endpoints with a secret, or several in a file of their own", () =>
    Effect.gen(function* () {
      const { endpoints } = yield* settingsOf({
        secrets: `${secret}\nwhsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD7wFvqXv3Y1A=\n`,
        webhooks: `- { name: pager, url: "https://pager.example/hook", secretFile: FOLDER/secrets, severities: [critical] }
- { name: chat, url: "http://127.0.0.1:9000/", secret: ${secret} }
`
      })
      expect(endpoints).toMatchObject([
        { name: "pager", severities: ["critical"], secrets: [{}, {}] },
        { name: "chat", severities: ["info", "warning", "critical"] }
      ])
      expect(Redacted.value(endpoints[0]?.secrets[0] ?? Redacted.make(""))).toBe(secret)
      expect(JSON.stringify(endpoints)).not.toContain("whsec_")
    })
  )

  it.effect("refuse endpoints that would send in clear or sign with nothing, and never quote a secret", () =>
    Effect.gen(function* () {
      const message = yield* messageOf({
        webhooks: `- { name: plain, url: "http://pager.example/", secret: ${secret} }
- { name: short, url: "https://a.example/", secret: whsec_c2hvcnQ= }
- { name: none, url: "https://a.example/" }
- { name: away, url: "https://a.example/", secret: ${secret}, secretFile: x }
- { name: Bad Name, url: "https://a.example/", secret: ${secret} }
`
      })
      for (const text of [
        "endpoint plain: /url an https URL, or http on a loopback address",
        "endpoint short: a secret is whsec_ and 24 to 64 bytes in base64",
        "endpoint none: exactly one of secret and secretFile",
        "endpoint away: exactly one of secret and secretFile",
        "endpoint Bad Name: /name "
      ]) {
        expect(message).toContain(text)
      }
      expect(message).not.toMatch(/whsec_\S{9,}/u)
      expect(
        yield* messageOf({ webhooks: `- { name: a, url: "https://a.example/", secretFile: FOLDER/none }` })
      ).toContain("it cannot be read")
    })
  )
})

describe("the signature", () => {
  // the vector of the specification's reference libraries
  const message = { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: 1614265330, body: '{"test": 2432232314}' }

  it("is the one of Standard Webhooks' own vector", () => {
    expect(signed([secret], message)).toEqual({
      "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
      "webhook-timestamp": "1614265330",
      "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    })
  })

  it("is made with each secret", () => {
    const header = signed([secret, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD7wFvqXv3Y1A="], message)["webhook-signature"]
    expect(header).toMatch(/^v1,g0hM9SsE\+OTPJTGt\/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,[A-Za-z0-9+/]{43}=$/u)
  })

  it("takes no secret that is none", () => {
    for (const wrong of [
      "",
      "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      "whsec_",
      "whsec_c2hvcnQ=",
      "whsec_!!!",
      `whsec_${"A".repeat(100)}`
    ]) {
      expect(secretKey(wrong)).toBeUndefined()
    }
  })
})
