/** C2SP signed-note: the specification's examples, those of golang.org/x/mod/sumdb/note, and notes that were altered. */
import { generateKeyPairSync, sign } from "node:crypto"
import { Result } from "effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { isKeyName, keyTypes } from "../../src/domain/NoteKey.ts"
import { hex, sha256, utf8 } from "../../src/domain/Sha256.ts"
import {
  formatNote,
  generateSignerKey,
  maxSignatures,
  NoteKeyFault,
  type NoteVerifier,
  parseNote,
  parseSignerKey,
  parseVerifierKey,
  signNote,
  verifyNote,
  withSignatures
} from "../../src/domain/SignedNote.ts"

const peterSigner = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
const peterKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
const enochKey = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
const text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
const peterLine =
  "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
const enochLine =
  "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
const peterNote = `${text}\n${peterLine}`

const right = <A, E>(result: Result.Result<A, E>): A => {
  if (Result.isFailure(result)) throw new Error(`failed: ${String(result.failure)}`)
  return result.success
}
const wrong = <A, E>(result: Result.Result<A, E>): E => {
  if (Result.isSuccess(result)) throw new Error("it succeeded")
  return result.failure
}
const key = (vkey: string): NoteVerifier => right(parseVerifierKey(vkey))
const peter = key(peterKey)
const enoch = key(enochKey)
const names = (verifiers: ReadonlyArray<NoteVerifier>) => verifiers.map((one) => one.name)
const signersOf = async (note: string, verifiers: ReadonlyArray<NoteVerifier>) =>
  names(right(await verifyNote(note, verifiers)).signers)
const reasonOf = async (note: string, verifiers: ReadonlyArray<NoteVerifier> = [peter]) =>
  wrong(await verifyNote(note, verifiers)).reason

describe("a signed note", () => {
  it("the specification's example verifies", async () => {
    const verifier = key("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    const note =
      "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
    expect(right(await verifyNote(note, [verifier]))).toMatchObject({
      body: "This is an example message.\n",
      signers: [{ name: "example.com/foo" }]
    })
  })

  it("PeterNeumann's is made to the byte, and verifies", async () => {
    expect(await signNote(text, peterSigner)).toBe(peterNote)
    const signer = right(await parseSignerKey(peterSigner))
    expect(signer.verifier.text).toBe(peterKey)
    expect(await signNote(text, signer)).toBe(peterNote)
    expect(right(await verifyNote(peterNote, [peter])).body).toBe(text)
  })

  it("by two, either of whom is trusted: the other's signature is passed over", async () => {
    const note = `${text}\n${peterLine}${enochLine}`
    expect(await signersOf(note, [peter])).toEqual(["PeterNeumann"])
    expect(await signersOf(note, [enoch])).toEqual(["EnochRoot"])
    expect(await signersOf(note, [enoch, peter, enoch])).toEqual(["PeterNeumann", "EnochRoot"])
    expect(await reasonOf(note, [])).toBe("unknown_key")
  })

  it("with an altered text, or a part of it moved, is refused", async () => {
    for (const altered of [
      peterNote.replace("problem is", "problem was"),
      peterNote.replace("answer", "Answer"),
      peterNote.replace(",\n", ",\n\n"),
      peterNote.replace("is.\n", "is.\n\n— PeterNeumann said\n"),
      ` ${peterNote}`,
      peterNote.replace(text, `${text}\n`),
      peterNote.replace(text, text.slice(1))
    ]) {
      expect(await reasonOf(altered)).toBe("bad_signature")
    }
  })

  it("each character of the text and of the signature counts", async () => {
    const end = peterNote.length - 1
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: end }), fc.string({ minLength: 1, maxLength: 1 }), async (at, put) => {
        fc.pre(peterNote[at] !== put)
        const altered = peterNote.slice(0, at) + put + peterNote.slice(at + 1)
        expect(Result.isFailure(await verifyNote(altered, [peter]))).toBe(true)
      }),
      { numRuns: 300 }
    )
  })

  it("one bad signature of a known key refuses it, whoever else signed", async () => {
    const bad = peterLine.replace("x08go/ZJ", "x08go/ZK")
    expect(await reasonOf(`${text}\n${enochLine}${bad}`, [peter, enoch])).toBe("bad_signature")
    expect(await signersOf(`${text}\n${enochLine}${bad}`, [enoch])).toEqual(["EnochRoot"])
    // the first of a key decides
    expect(await reasonOf(`${text}\n${bad}${peterLine}`)).toBe("bad_signature")
    expect(await signersOf(`${text}\n${peterLine}${bad}`, [peter])).toEqual(["PeterNeumann"])
  })

  it("by the same name with another id, or the same id with another name, is nobody's", async () => {
    expect(await reasonOf(`${text}\n${peterLine.replace("x08g", "xxxx")}`)).toBe("unknown_key")
    expect(await reasonOf(`${text}\n${peterLine.replace("PeterNeumann", "CarmenSandiego")}`)).toBe("unknown_key")
  })

  it.each([
    ["no signature", text],
    ["an empty list of signatures", `${text}\n`],
    ["no newline at the end", peterNote.slice(0, -1)],
    ["a control character", `\u0001${peterNote}`],
    ["a carriage return", peterNote.replace("\n", "\r\n")],
    ["half of a character", `\ud800${peterNote}`],
    ["a space in a name", peterNote.replace("PeterNeumann", "Peter Neumann")],
    ["a plus in a name", peterNote.replace("PeterNeumann", "Peter+Neumann")],
    ["a no-break space in a name", peterNote.replace("PeterNeumann", "Peter\u00a0Neumann")],
    ["no name", peterNote.replace("— PeterNeumann ", "—  ")],
    ["a line that is no signature", `${peterNote}Unexpected line.\n`],
    ["a hyphen for the dash", peterNote.replace("—", "-")],
    ["base64 that is not canonical", peterNote.replace("nAM=", "nAN=")],
    ["base64 without its padding", peterNote.replace("nAM=", "nAM")],
    ["a key id alone", `${text}\n— PeterNeumann x08gow==\n`],
    ["101 signatures", `${text}\n${peterLine.repeat(maxSignatures + 1)}`],
    ["too much of it", "a".repeat(1_000_001) + peterNote]
  ])("with %s is none", async (_, note) => {
    expect(wrong(parseNote(note)).reason).toBe("malformed")
    expect(await reasonOf(note)).toBe("malformed")
  })

  it("of 16 signatures and more is read, the known one wherever it stands", async () => {
    const strangers = Array.from({ length: maxSignatures - 1 }, (_, n) =>
      enochLine.replace("EnochRoot", `stranger${n}`)
    )
    expect(await signersOf(`${text}\n${strangers.join("")}${peterLine}`, [peter])).toEqual(["PeterNeumann"])
  })

  it("may have empty lines in its text: the last one ends it", async () => {
    const body = "a\n\n— b\n\nc\n"
    const note = await signNote(body, peterSigner)
    expect(right(await verifyNote(note, [peter])).body).toBe(body)
  })

  it("comes back as it was taken apart, and takes a further signature", async () => {
    const note = right(parseNote(`${text}\n${peterLine}${enochLine}`))
    expect(formatNote(note.body, note.signatures)).toBe(`${text}\n${peterLine}${enochLine}`)
    const [first, second] = note.signatures as [(typeof note.signatures)[0], (typeof note.signatures)[0]]
    expect(withSignatures({ body: text, signatures: [first] }, [second])).toBe(`${text}\n${peterLine}${enochLine}`)
    expect(withSignatures(note, [first])).toBe(`${text}\n${enochLine}${peterLine}`)
  })

  it("of a text that no note can have is not made", async () => {
    for (const body of ["abc", "a\tb\n", "a\r\n", "\ud800\n", ""]) {
      await expect(signNote(body, peterSigner)).rejects.toThrow(RangeError)
    }
    expect(() => formatNote(text, [])).toThrow(RangeError)
    await expect(signNote(text, peterKey)).rejects.toThrow(NoteKeyFault)
  })
})

describe("rotation", () => {
  it("while both keys sign, whoever trusts the old one, the new one or both is served", async () => {
    const older = await generateSignerKey("velocity.example/log")
    const newer = await generateSignerKey("velocity.example/log")
    const [oldKey, newKey] = [key(older.verifierKey), key(newer.verifierKey)]
    const before = await signNote("1\n", older.signerKey)
    const overlap = await signNote("2\n", older.signerKey, newer.signerKey)
    const after = await signNote("3\n", newer.signerKey)
    for (const trusted of [[oldKey], [newKey], [oldKey, newKey]]) {
      expect(await signersOf(overlap, trusted)).toHaveLength(trusted.length)
    }
    for (const note of [before, after]) {
      expect(await signersOf(note, [newKey, oldKey])).toEqual(["velocity.example/log"])
    }
    expect(await reasonOf(after, [oldKey])).toBe("unknown_key")
    expect(await reasonOf(before, [newKey])).toBe("unknown_key")
  })
})

describe("keys", () => {
  it("have the id that is the hash of name, type and key", async () => {
    const { signerKey, verifierKey } = await generateSignerKey("velocity.example/log")
    const verifier = key(verifierKey)
    const material = Buffer.from(verifierKey.split("+").slice(2).join("+"), "base64")
    expect(hex(verifier.keyId)).toBe(hex(sha256(Buffer.concat([utf8("velocity.example/log\n"), material])).slice(0, 4)))
    expect(verifier.text).toBe(verifierKey)
    expect(signerKey).toMatch(/^PRIVATE\+KEY\+velocity\.example\/log\+[0-9a-f]{8}\+A[A-Za-z0-9+/]{43}$/u)
    expect(right(await parseSignerKey(signerKey)).verifier).toEqual(verifier)
  })

  it("are never made twice", async () => {
    const made = await Promise.all(Array.from({ length: 20 }, () => generateSignerKey("a")))
    expect(new Set(made.map((one) => one.signerKey)).size).toBe(20)
  })

  it("verify what another implementation of Ed25519 signed", async () => {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519")
    const x = Buffer.from(publicKey.export({ format: "jwk" }).x as string, "base64url")
    const id = sha256(Buffer.concat([Buffer.from("other\n\u0001"), x])).slice(0, 4)
    const verifier = key(`other+${hex(id)}+${Buffer.concat([Buffer.of(1), x]).toString("base64")}`)
    const note = formatNote("by node:crypto\n", [
      { name: "other", keyId: id, signature: sign(null, Buffer.from("by node:crypto\n"), privateKey) }
    ])
    expect(await signersOf(note, [verifier])).toEqual(["other"])
  })

  it("of which a part is missing or changed are refused, and never repeated in the refusal", async () => {
    for (const [whole, parse] of [
      [peterKey, (one: string) => Promise.resolve(parseVerifierKey(one))],
      [peterSigner, parseSignerKey]
    ] as const) {
      for (let at = 0; at < whole.length; at++) {
        const next = String.fromCharCode(whole.charCodeAt(at) + 1)
        for (const bad of [whole.slice(at + 1), whole.slice(0, at), whole.slice(0, at) + next + whole.slice(at + 1)]) {
          const { message } = wrong<unknown, NoteKeyFault>(await parse(bad))
          expect(message).not.toContain(whole.slice(-20))
        }
      }
    }
  })

  it.each([
    ["a key too long, with its own id", "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY=="],
    ["an unknown type, with its own id", "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"],
    ["a witness's key", "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"],
    ["a newline behind it", `${peterKey}\n`],
    ["a signer key", peterSigner],
    ["nothing", ""]
  ])("%s is not a log's verifier key", (_, bad) => {
    expect(wrong(parseVerifierKey(bad))).toBeInstanceOf(NoteKeyFault)
  })

  it("that cosign do not sign, and sign nothing that a note's key would pass for", async () => {
    const witness = await generateSignerKey("witness.example", keyTypes.cosignature)
    expect(wrong(await parseSignerKey(witness.signerKey)).message).toContain("a witness's key")
    const signer = right(await parseSignerKey(witness.signerKey, keyTypes.cosignature))
    await expect(signNote("a\n", signer)).rejects.toThrow(RangeError)
  })

  it.each(["", "a b", "a+b", "a\u00a0b", "a\u2028b", "a\tb", "a\u0000", "\ud800"])("%j is no name", async (name) => {
    expect(isKeyName(name)).toBe(false)
    await expect(generateSignerKey(name)).rejects.toThrow(RangeError)
  })
})
