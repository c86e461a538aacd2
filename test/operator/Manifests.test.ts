/** Manifests as text: what the versions of YAML read differently, where faults stand, what is passed over. */
import { describe, expect, it } from "vitest"
import { isAmbiguous, parseManifests, renderProblem } from "../../src/operator/state/Manifests.ts"

const problemsOf = (text: string) => parseManifests("a.yaml", text).problems.map(renderProblem)

const organisation = (more = "") => `apiVersion: velocity.sh/v1
kind: Organisation
metadata: { name: acme }
spec: { org: acme${more} }
`

describe("manifests", () => {
  it("knows the scalars that YAML 1.1 and 1.2 read differently", () => {
    const ambiguous = [
      ...["y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"],
      ...[
        "012",
        "0o12",
        "1_000",
        "0b11",
        "1:30",
        "13:30:00",
        "190:20:30.15",
        "2026-11-24",
        "2026-11-24T01:02:03Z",
        "<<"
      ]
    ]
    const plain = [
      ...["true", "false", "True", "null", "~", "1", "-1", "1.0", "1.5", "0x10", "1e3", "text", "v1", "a-b", "acme"],
      ...["1.2.3", "yesterday", "none", "onset", "0", ".5", "127.0.0.1", "90d", "$.sub", "^PO-[0-9]{8}$"]
    ]
    expect(ambiguous.filter((one) => !isAmbiguous(one))).toEqual([])
    expect(plain.filter(isAmbiguous)).toEqual([])
  })

  it("refuses them with line and column, in keys and values, and takes them quoted", () => {
    expect(problemsOf(organisation(", displayName: no"))).toEqual([
      'a.yaml:4:33: YAML 1.1 and 1.2 read no differently; quote it: "no"'
    ])
    expect(problemsOf(organisation(", no: x"))).toEqual([
      'a.yaml:4:20: YAML 1.1 and 1.2 read no differently; quote it: "no"'
    ])
    expect(problemsOf(organisation(', displayName: "no"'))).toEqual([])
    expect(problemsOf(organisation(", displayName: 'no'"))).toEqual([])
  })

  it("tells a fault where it stands, all of a document at once, and reads the documents beside it", () => {
    const text = `${organisation(", colour: red, displayName: [x]")}---
${organisation()}---
apiVersion: v1
kind: Namespace
metadata: { name: acme }
---
# nothing
---
kind: Thing
apiVersion: velocity.sh/v1
metadata: { name: x }
`
    const { problems, resources } = parseManifests("a.yaml", text)
    expect(problems.map(renderProblem)).toEqual([
      expect.stringMatching(/^a\.yaml:4:20: \/spec\/colour: /u),
      expect.stringMatching(/^a\.yaml:4:33: \/spec\/displayName: /u),
      expect.stringMatching(/^a\.yaml:17:1: \/kind: /u)
    ])
    expect(problems.map((one) => one.identity)).toEqual([
      "Organisation/velocity-system/acme",
      "Organisation/velocity-system/acme",
      "Thing/velocity-system/x"
    ])
    expect(resources.map((one) => `${one.identity} ${one.line}`)).toEqual(["Organisation/velocity-system/acme 6"])
  })

  it("refuses what is no YAML, or more than YAML", () => {
    expect(problemsOf("a: [1")).toEqual([expect.stringMatching(/^a\.yaml:1:6: /u)])
    expect(problemsOf("a: 1\na: 2\n")).toEqual([expect.stringMatching(/^a\.yaml:2:1: /u)])
    expect(problemsOf(`${organisation()}status: !!js/function x\n`)).toHaveLength(1)
    const bomb = ["a0: &a0 [x, x]", ...Array.from({ length: 30 }, (_, i) => `a${i + 1}: &a${i + 1} [*a${i}, *a${i}]`)]
    expect(problemsOf(bomb.join("\n"))).toEqual(["a.yaml:1:1: it has too many aliases"])
    expect(problemsOf("- 1\n- 2\n")).toEqual([expect.stringMatching(/a manifest is a mapping/u)])
    expect(problemsOf("")).toEqual([])
  })
})
