/** `velocity audit keygen` and `verify-proof` as people type them: files, two streams and a status; no database, no network. */
import { readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Result } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { cosign, parseWitnessKey } from "../../src/domain/Cosignature.ts"
import { verifyEntryProof } from "../../src/domain/EntryProof.ts"
import { generateSignerKey, keyLabel, keyTypes, parseSignerKey, parseVerifierKey } from "../../src/domain/NoteKey.ts"
import { parseNote, signNote, withSignatures } from "../../src/domain/SignedNote.ts"
import { type EntryLog, makeEntryLog, origin, right } from "../domain/EntryLog.ts"
import { removeFolder, temporaryFolder } from "../e2e/Dev.ts"
import { type Ran, run } from "./Run.ts"

let folder: string
let log: EntryLog
beforeAll(async () => {
  folder = await temporaryFolder()
  log = await makeEntryLog(300)
})
afterAll(() => removeFolder(folder))

const at = (name: string) => join(folder, name)
const save = async (name: string, content: string | object): Promise<string> => {
  await writeFile(at(name), typeof content === "string" ? content : JSON.stringify(content))
  return at(name)
}

/** Whoever opens a socket or asks for a name ends with 99. */
const noNetwork = `data:text/javascript,${encodeURIComponent(`
import net from "node:net"
import dns from "node:dns"
const refuse = () => { process.stderr.write("it used the network"); process.exit(99) }
net.Socket.prototype.connect = refuse
dns.lookup = refuse
`)}`
const verify = (...args: ReadonlyArray<string>): Promise<Ran> =>
  run(["audit", "verify-proof", ...args], { NODE_OPTIONS: `--import=${noNetwork}` })
const keygen = (...args: ReadonlyArray<string>): Promise<Ran> => run(["audit", "keygen", ...args])

/** One line or two on stderr, nothing on stdout, no trace of a stack. */
const plainly = (ran: Ran, code: number, text: string) => {
  expect(ran.err).toContain(text)
  expect(ran).toMatchObject({ code, out: "" })
  expect(ran.err).not.toMatch(/SchemaError|\n {4}at |undefined/u)
  expect(ran.err.split("\n").length).toBeLessThan(8)
}

describe("velocity audit keygen", () => {
  it("writes a signer key for its owner alone, and prints the key that verifies it", async () => {
    const made = await keygen("--name", "velocity.example/audit", "--out", at("signer.key"))
    expect(made).toMatchObject({ code: 0, err: "" })
    expect((await stat(at("signer.key"))).mode & 0o777).toBe(0o600)
    const [secret = "", rest] = (await readFile(at("signer.key"), "utf8")).split("\n")
    expect(rest).toBe("")
    const signer = right(await parseSignerKey(secret))
    expect(made.out).toBe(`${signer.verifier.text}\n`)
    expect(made.out).not.toContain(secret.slice(-20))

    const document = log.document(7, await signNote(log.body, secret))
    const key = right(parseVerifierKey(made.out.trim()))
    expect(Result.isSuccess(await verifyEntryProof(document, [key]))).toBe(true)
  })

  it("never writes over a file, nor makes one half", async () => {
    await save("kept.key", "kept")
    plainly(await keygen("--name", "a", "--out", at("kept.key")), 1, "exists already, and a key is never overwritten")
    expect(await readFile(at("kept.key"), "utf8")).toBe("kept")
    plainly(await keygen("--name", "a", "--out", at("nowhere/a.key")), 1, "no such file or directory")
  })

  it("says in a line what is wrong with its words", async () => {
    plainly(await keygen("--name", "a b", "--out", at("no.key")), 2, "without spaces and plus signs")
    plainly(await keygen("--out", at("no.key")), 2, "--name")
    await expect(stat(at("no.key"))).rejects.toThrow("ENOENT")
  })
})

describe("velocity audit verify-proof", () => {
  it("ends with 0, and says what was proved, without a database and without a network", async () => {
    const file = await save("proof.json", log.document(17))
    const { entry } = log.document(17)
    const proved = await verify(file, "--key", log.key.text)
    expect(proved).toMatchObject({ code: 0, err: "" })
    expect(proved.out).toBe(
      [
        `proved: entry ${entry.id} stands at 17 of the 300 entries of ${origin}`,
        "  chain       acme/geo/atlas",
        "  lane        2",
        "  seq         3",
        "  time        2026-11-24T00:00:17.000017Z",
        "  act         create (ok) by development/zoë",
        `  signed by   ${keyLabel(log.key)}`,
        ""
      ].join("\n")
    )
    const json = await verify(file, "--key", log.key.text, "-o", "json")
    expect(JSON.parse(json.out)).toMatchObject({
      proved: true,
      chain: "acme/geo/atlas",
      lane: 2,
      seq: "3",
      hash: entry.hash,
      index: 17,
      origin,
      tree_size: 300,
      signers: [keyLabel(log.key)],
      witnesses: []
    })
  })

  it("takes a tlog-proof and the entry apart", async () => {
    const proof = await save("a.tlog-proof", log.proof(17))
    const entry = await save("entry.json", log.document(17).entry)
    const other = await save("other.json", log.document(18).entry)
    const key = log.key.text
    expect(await verify(proof, "--key", key, "--entry", entry)).toMatchObject({ code: 0 })
    plainly(
      await verify(proof, "--key", key, "--entry", other),
      1,
      "refuted (path): This entry is not what stands at 17"
    )
    plainly(await verify(proof, "--key", key), 2, "say --entry FILE")
    plainly(await verify(await save("both.json", log.document(17)), "--key", key, "--entry", entry), 2, "only beside a")
  })

  it("ends with 1, and names the step, where something was changed", async () => {
    const { entry, proof } = log.document(2)
    const key = log.key.text
    const altered = await save("altered.json", { entry: { ...entry, actor: "development/mallory" }, proof })
    plainly(await verify(altered, "--key", key), 1, "refuted (hash): The entry's columns do not have the hash")
    const moved = await save("moved.json", { entry, proof: log.proof(3) })
    plainly(await verify(moved, "--key", key), 1, "refuted (path): This entry is not what stands at 3 of the log")
    const forged = await save("forged.json", log.document(2, log.checkpoint.replace("\n300\n", "\n301\n")))
    plainly(await verify(forged, "--key", key), 1, "refuted (signature): The signature of velocity.example/audit+")
    const json = await verify(moved, "--key", key, "-o", "json")
    expect(json.code).toBe(1)
    expect(JSON.parse(json.out)).toMatchObject({ proved: false, verdict: "refuted", step: "path" })
  })

  it("ends with 2 where it could not tell", async () => {
    const file = await save("fine.json", log.document(2))
    const key = log.key.text
    const stranger = (await generateSignerKey(origin)).verifierKey
    const says = async (text: string, ...args: ReadonlyArray<string>) => plainly(await verify(...args), 2, text)
    await Promise.all([
      says("could not tell (signer): No key that is known signed the note", file, "--key", stranger),
      says("away.json", at("away.json"), "--key", key)
    ])
    await Promise.all([
      says("could not tell (document)", await save("empty", ""), "--key", key),
      says("an object with an entry and a proof", await save("array.json", "[]"), "--key", key)
    ])
    await writeFile(at("latin1.json"), Buffer.from(JSON.stringify(log.document(2)), "latin1"))
    await Promise.all([says("cannot read", at("latin1.json"), "--key", key), says("--key", file)])
    await Promise.all([
      says("--key: ", file, "--key", key.slice(0, -4)),
      says("holds no key", file, "--key", `@${await save("no.key", "\n")}`)
    ])
    // the secret half, given for the public one, is not printed
    const secret = await verify(file, "--key", log.signerKey)
    plainly(secret, 2, "--key: this is not a verifier key")
    expect(secret.err).not.toContain(log.signerKey.slice(-20))
    const json = await verify(file, "--key", stranger, "-o", "json")
    expect(json.code).toBe(2)
    expect(JSON.parse(json.out)).toMatchObject({ proved: false, verdict: "unknown", step: "signer" })
  })

  it("while keys rotate: several keys, or a file of them, and either will do", async () => {
    const newer = await generateSignerKey(origin)
    const keys = await save("keys", `${log.key.text}\r\n\n${newer.verifierKey}\n`)
    const before = await save("before.json", log.document(2))
    const after = await save("after.json", log.document(2, await signNote(log.body, newer.signerKey)))
    const both = await save("both.json", log.document(2, await signNote(log.body, log.signerKey, newer.signerKey)))
    const ran = await Promise.all([
      verify(before, "--key", log.key.text, "--key", newer.verifierKey),
      verify(after, "--key", `@${keys}`)
    ])
    expect(ran.map(({ code }) => code)).toEqual([0, 0])
    expect((await verify(both, "--key", `@${keys}`)).out).toContain(
      `signed by   ${keyLabel(log.key)}, ${keyLabel(right(parseVerifierKey(newer.verifierKey)))}`
    )
    plainly(await verify(after, "--key", log.key.text), 2, "could not tell (signer)")
  })

  it("asks for the witnesses that are named", async () => {
    const made = await generateSignerKey("witness.example/w1", keyTypes.cosignature)
    const signer = right(await parseSignerKey(made.signerKey, keyTypes.cosignature))
    const cosigned = withSignatures(right(parseNote(log.checkpoint)), [await cosign(log.body, signer, 1_790_000_000)])
    const file = await save("cosigned.json", log.document(2, cosigned))
    const args = ["--key", log.key.text, "--witness", made.verifierKey] as const
    expect((await verify(file, ...args)).out).toContain(
      `cosigned by ${keyLabel(right(parseWitnessKey(made.verifierKey)))} at 2026-09-21T`
    )
    plainly(await verify(await save("alone.json", log.document(2)), ...args), 2, "has not cosigned the checkpoint")
    plainly(await verify(file, "--key", log.key.text, "--witness", log.key.text), 2, "not one of type 4")
    plainly(await verify(file, "--key", made.verifierKey), 2, "a witness's key")
  })

  it("lets nothing that was written into an entry draw on the terminal", async () => {
    const { entry, proof } = log.document(2)
    const file = await save("drawing.json", { entry, proof: proof.replace("— velocity", "— \u009b2Jvelocity") })
    const ran = await verify(file, "--key", log.key.text)
    expect(ran.code).toBe(2)
    expect(ran.err).toContain("\ufffd2Jvelocity")
    expect(ran.err).not.toContain("\u009b")
  })
})
