/** What a caller verifies by itself, with the package's own exports: no API, no HttpClient, the key as text. */
import { Effect } from "effect"
import { beforeAll, describe, expect, it, vi } from "vitest"
import { EntryProofFault, type ExactValue, NoteKeyFault, parse, verifyEntryProof } from "../../src/client/index.ts"
import { cosign } from "../../src/domain/Cosignature.ts"
import { generateSignerKey, keyTypes, parseSignerKey } from "../../src/domain/NoteKey.ts"
import { parseNote, signNote, withSignatures } from "../../src/domain/SignedNote.ts"
import { type EntryLog, makeEntryLog, right } from "../domain/EntryLog.ts"

let log: EntryLog
beforeAll(async () => {
  log = await makeEntryLog(40)
})

const proved = (...args: Parameters<typeof verifyEntryProof>) => Effect.runPromise(verifyEntryProof(...args))
const refusal = (...args: Parameters<typeof verifyEntryProof>) =>
  Effect.runPromise(Effect.flip(verifyEntryProof(...args)))

describe("verifyEntryProof of the client", () => {
  it("proves what came from the API, read by JSON.parse or by the client's own parse", async () => {
    const text = JSON.stringify(log.document(12))
    for (const read of [JSON.parse, (one: string): ExactValue => parse(one)]) {
      expect(await proved(read(text), [log.key.text])).toMatchObject({
        entry: { chain: "platform", lane: 2, seq: "1", id: log.entries[12]?.id },
        index: 12,
        checkpoint: { origin: "velocity.example/audit", size: 40 }
      })
    }
  })

  it("fails with what was refuted, and with what could not be told", async () => {
    const { entry, proof } = log.document(12)
    const forged = await refusal({ entry: { ...entry, outcome: "denied" }, proof }, [log.key.text])
    expect(forged).toBeInstanceOf(EntryProofFault)
    expect(forged).toMatchObject({ _tag: "EntryProofFault", verdict: "refuted", step: "hash" })
    const { verifierKey } = await generateSignerKey("velocity.example/audit")
    expect(await refusal(log.document(12), [verifierKey])).toMatchObject({ verdict: "unknown", step: "signer" })
    expect(await refusal(log.document(12), [])).toMatchObject({ verdict: "unknown", step: "signer" })
    expect(await refusal("<html>", [log.key.text])).toMatchObject({ verdict: "unknown", step: "document" })
  })

  it("fails with NoteKeyFault for a text that is no key", async () => {
    expect(await refusal(log.document(12), [log.key.text, "nonsense"])).toBeInstanceOf(NoteKeyFault)
    expect(await refusal(log.document(12), [log.key.text], { witnesses: [log.key.text] })).toBeInstanceOf(NoteKeyFault)
  })

  it("while keys rotate either will do", async () => {
    const newer = await generateSignerKey("velocity.example/audit")
    const document = log.document(3, await signNote(log.body, log.signerKey, newer.signerKey))
    expect((await proved(document, [newer.verifierKey])).signers).toHaveLength(1)
    expect((await proved(document, [log.key.text, newer.verifierKey])).signers).toHaveLength(2)
  })

  it("asks for the witnesses that are named", async () => {
    const made = await generateSignerKey("witness.example/w1", keyTypes.cosignature)
    const signer = right(await parseSignerKey(made.signerKey, keyTypes.cosignature))
    const cosigned = withSignatures(right(parseNote(log.checkpoint)), [await cosign(log.body, signer, 7)])
    const options = { witnesses: [made.verifierKey] }
    expect((await proved(log.document(3, cosigned), [log.key.text], options)).witnesses).toMatchObject([{ time: 7 }])
    expect(await refusal(log.document(3), [log.key.text], options)).toMatchObject({ step: "witness" })
  })

  it("refutes nothing where the platform has no Ed25519", async () => {
    const importKey = vi.spyOn(crypto.subtle, "importKey").mockRejectedValue(new Error("NotSupportedError"))
    try {
      expect(await refusal(log.document(3), [log.key.text])).toMatchObject({
        verdict: "unknown",
        step: "signature",
        message: "This platform cannot verify Ed25519 signatures (NotSupportedError)."
      })
    } finally {
      importKey.mockRestore()
    }
  })
})
