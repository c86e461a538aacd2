/** C2SP tlog-checkpoint, tlog-cosignature and tlog-proof: to the byte, and nothing that is not one. */
import { Result } from "effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { formatCheckpoint, parseCheckpoint, verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import {
  cosign,
  cosignatureTime,
  cosignedMessage,
  parseWitnessKey,
  verifyCosignature,
  verifyCosignatures
} from "../../src/domain/Cosignature.ts"
import {
  generateSignerKey,
  keyTypes,
  type NoteVerifier,
  parseSignerKey,
  parseVerifierKey
} from "../../src/domain/NoteKey.ts"
import { parseNote, parseSignatureLine, signNote, verifyNote, withSignatures } from "../../src/domain/SignedNote.ts"
import { formatTlogProof, maxPathLength, parseTlogProof } from "../../src/domain/TlogProof.ts"

const right = <A, E>(result: Result.Result<A, E>): A => {
  if (Result.isFailure(result)) throw new Error(`failed: ${String(result.failure)}`)
  return result.success
}
const isRefused = (result: Result.Result<unknown, unknown>) => Result.isFailure(result)

/** The example of the specification. */
const body = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
const note = `${body}
— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
`
const root = new Uint8Array(Buffer.from("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=", "base64"))
const checkpoint = { origin: "example.com/behind-the-sofa", size: 20852163, root, extensions: [] }

describe("a checkpoint", () => {
  it("is the specification's example, both ways", () => {
    expect(right(parseCheckpoint(right(parseNote(note)).body))).toEqual(checkpoint)
    expect(formatCheckpoint(checkpoint)).toBe(body)
  })

  it("of an empty tree, with extensions, and any other comes back as it was", () => {
    const line = fc
      .string({ unit: "binary", minLength: 1, maxLength: 12 })
      .map((one) => one.replace(/[\p{Cc}\p{Cs}]/gu, "-"))
    fc.assert(
      fc.property(
        fc.record({
          origin: line,
          size: fc.maxSafeNat(),
          root: fc.uint8Array({ minLength: 32, maxLength: 32 }),
          extensions: fc.array(line, { maxLength: 3 })
        }),
        (given) => {
          expect(right(parseCheckpoint(formatCheckpoint(given)))).toEqual(given)
        }
      )
    )
    expect(right(parseCheckpoint("o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")).size).toBe(0)
  })

  it.each([
    ["two lines", "o\n1\n"],
    ["no newline at the end", body.slice(0, -1)],
    ["no origin", `\n${body.split("\n").slice(1).join("\n")}`],
    ["leading zeros", body.replace("20852163", "020852163")],
    ["a sign", body.replace("20852163", "+20852163")],
    ["a size beyond 2^53", body.replace("20852163", "9007199254740992")],
    ["a size that is no number", body.replace("20852163", "many")],
    ["digits that are not ASCII", body.replace("20852163", "２")],
    ["a root too short", body.replace("CsUYapGG", "")],
    ["a root that is not canonical", body.replace("q2I=", "q2J=")],
    ["a root in hexadecimal", body.replace(/Cs.*=/u, "00".repeat(32))],
    ["an empty extension", `${body}\nx\n`],
    ["a carriage return", body.replace("\n", "\r\n")]
  ])("with %s is none", (_, text) => expect(isRefused(parseCheckpoint(text))).toBe(true))

  it.each([
    { ...checkpoint, origin: "" },
    { ...checkpoint, origin: "evil\n999" },
    { ...checkpoint, extensions: ["a\nb"] },
    { ...checkpoint, extensions: [""] },
    { ...checkpoint, size: -1 },
    { ...checkpoint, size: 1.5 },
    { ...checkpoint, size: 2 ** 53 },
    { ...checkpoint, root: root.slice(1) }
  ])("is never written of %j", (given) => expect(() => formatCheckpoint(given)).toThrow(RangeError))

  it("is read only when somebody who is trusted has signed it", async () => {
    const log = await generateSignerKey("example.com/behind-the-sofa")
    const verifier = right(parseVerifierKey(log.verifierKey))
    const signed = await signNote(body, log.signerKey)
    expect(right(await verifyCheckpoint(signed, [verifier])).checkpoint).toEqual(checkpoint)
    for (const altered of [
      signed.replace("20852163", "20852164"),
      signed.replace("the-sofa\n", "the-couch\n"),
      signed.replace("CsUY", "CsUZ"),
      signed.replace(body, `${body}extension\n`)
    ]) {
      expect(await verifyCheckpoint(altered, [verifier])).toMatchObject({ failure: { reason: "bad_signature" } })
    }
    expect(await verifyCheckpoint(note, [verifier])).toMatchObject({ failure: { reason: "unknown_key" } })
    const other = await signNote("no checkpoint\n", log.signerKey)
    expect(await verifyCheckpoint(other, [verifier])).toMatchObject({ failure: { _tag: "CheckpointFault" } })
  })
})

describe("a cosignature", () => {
  const witnessOf = async (name: string) => {
    const pair = await generateSignerKey(name, keyTypes.cosignature)
    const signer = right(await parseSignerKey(pair.signerKey, keyTypes.cosignature))
    return { signer, verifier: right(parseWitnessKey(pair.verifierKey)) }
  }

  it("signs the message of the specification's example", () => {
    expect(Buffer.from(cosignedMessage(1679315147, body)).toString()).toBe(
      `cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n`
    )
    const [, cosignature] = right(parseNote(note)).signatures
    expect(cosignature).toMatchObject({ name: "witness.example.com/w1" })
    expect(cosignature && cosignatureTime(cosignature)).toBe(1679315147)
  })

  it("of transparency-dev/formats: its time, and its witness's key", () => {
    const line =
      "— remora.n621.de ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXORmnFBOBA=="
    expect(cosignatureTime(right(parseSignatureLine(line)))).toBe(1727964367)
    const verifier = right(parseWitnessKey("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"))
    expect(verifier).toMatchObject({ name: "remora.n621.de", type: 4 })
    expect(isRefused(parseWitnessKey("TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6"))).toBe(true)
  })

  it("is verified by its witness's key, over this checkpoint and this time alone", async () => {
    const { signer, verifier } = await witnessOf("witness.example/w1")
    const other = await witnessOf("witness.example/w1")
    const made = await cosign(body, signer, 1_790_000_000)
    expect(await verifyCosignature(body, made, verifier)).toBe(1_790_000_000)
    expect(await verifyCosignature(body.replace("20852163", "20852164"), made, verifier)).toBeUndefined()
    expect(await verifyCosignature(`${body}extension\n`, made, verifier)).toBeUndefined()
    expect(await verifyCosignature(body, made, other.verifier)).toBeUndefined()
    expect(await verifyCosignature(body, { ...made, name: "witness.example/w2" }, verifier)).toBeUndefined()
    expect(await verifyCosignature(body, made, { ...verifier, type: keyTypes.note })).toBeUndefined()
    for (let at = 0; at < made.signature.length; at++) {
      const signature = made.signature.map((byte, index) => (index === at ? byte ^ 1 : byte))
      expect(await verifyCosignature(body, { ...made, signature }, verifier)).toBeUndefined()
    }
    expect(await verifyCosignature(body, { ...made, signature: made.signature.slice(8) }, verifier)).toBeUndefined()
  })

  it("is no signature of the log, and the log's is no cosignature", async () => {
    const { signer, verifier } = await witnessOf("same.example")
    const log = await generateSignerKey("same.example")
    const logKey = right(parseVerifierKey(log.verifierKey))
    const cosigned = withSignatures({ body, signatures: [] }, [await cosign(body, signer, 1)])
    expect(await verifyNote(cosigned, [logKey])).toMatchObject({ failure: { reason: "unknown_key" } })
    expect(await verifyNote(cosigned, [verifier])).toMatchObject({ failure: { reason: "unknown_key" } })
    const signed = right(parseNote(await signNote(body, log.signerKey)))
    expect(right(await verifyCosignatures(signed, [verifier, logKey]))).toEqual([])
    await expect(cosign(body, right(await parseSignerKey(log.signerKey)), 1)).rejects.toThrow(RangeError)
  })

  it("stands beside the log's signature; a bad one of a trusted witness refuses the note", async () => {
    const [one, two] = [await witnessOf("one.example"), await witnessOf("two.example")]
    const log = await generateSignerKey("example.com/behind-the-sofa")
    const signed = right(parseNote(await signNote(body, log.signerKey)))
    const cosigned = withSignatures(signed, [await cosign(body, one.signer, 5), await cosign(body, two.signer, 6)])
    expect(right(await verifyCheckpoint(cosigned, [right(parseVerifierKey(log.verifierKey))])).signers).toHaveLength(1)
    const times = async (text: string, witnesses: ReadonlyArray<NoteVerifier>) =>
      right(await verifyCosignatures(right(parseNote(text)), witnesses)).map(({ time }) => time)
    expect(await times(cosigned, [two.verifier, one.verifier, two.verifier])).toEqual([6, 5])
    expect(await times(cosigned, [])).toEqual([])
    const bad = withSignatures(signed, [await cosign(body.replace("2085", "2086"), one.signer, 5)])
    expect(await verifyCosignatures(right(parseNote(bad)), [one.verifier])).toMatchObject({
      failure: { reason: "bad_signature" }
    })
  })

  it("is made of checkpoints only, at a time that there is", async () => {
    const { signer } = await witnessOf("w")
    await expect(cosign("a text\n", signer, 1)).rejects.toThrow(RangeError)
    for (const time of [-1, 1.5, Number.NaN, 2 ** 53])
      await expect(cosign(body, signer, time)).rejects.toThrow(RangeError)
  })
})

describe("a tlog-proof", () => {
  const hash = (n: number) => new Uint8Array(32).fill(n)
  const line = (n: number) => Buffer.from(hash(n)).toString("base64")
  const written = `c2sp.org/tlog-proof@v1\nindex 73894\n${line(1)}\n${line(2)}\n\n${note}`

  it("is written as the specification says, the checkpoint verbatim", () => {
    expect(formatTlogProof({ index: 73894, path: [hash(1), hash(2)], checkpoint: note })).toBe(written)
    expect(formatTlogProof({ index: 0, path: [], checkpoint: note })).toBe(`c2sp.org/tlog-proof@v1\nindex 0\n\n${note}`)
    expect(formatTlogProof({ index: 0, path: [], checkpoint: note, extra: Buffer.from("extra") })).toBe(
      `c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 0\n\n${note}`
    )
  })

  it("comes back as it was", () => {
    fc.assert(
      fc.property(
        fc.maxSafeNat(),
        fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 }), { maxLength: maxPathLength }),
        fc.option(fc.uint8Array({ maxLength: 40 })),
        (index, path, extra) => {
          const proof = { index, path, checkpoint: note, ...(extra === null ? {} : { extra }) }
          expect(right(parseTlogProof(formatTlogProof(proof)))).toEqual(proof)
        }
      )
    )
  })

  it.each([
    ["nothing", ""],
    ["another version", written.replace("@v1", "@v2")],
    ["a line before it", `\n${written}`],
    ["no index", written.replace("index 73894\n", "")],
    ["an index with leading zeros", written.replace("73894", "073894")],
    ["a negative index", written.replace("73894", "-1")],
    ["an index beyond 2^53", written.replace("73894", "9007199254740992")],
    ["two spaces", written.replace("index ", "index  ")],
    ["extra behind the index", written.replace("index 73894\n", "index 73894\nextra ZXh0cmE=\n")],
    ["extra that is not base64", written.replace("index", "extra ?\nindex")],
    ["a hash too short", written.replace(line(1), line(1).slice(4))],
    ["a hash that is not canonical", written.replace("AQEBAQE=", "AQEBAQF=")],
    ["no empty line", written.slice(0, written.indexOf("\n\n"))],
    ["65 hashes", written.replace(`${line(1)}\n`, `${line(1)}\n`.repeat(maxPathLength))],
    ["carriage returns", written.replaceAll("\n", "\r\n")]
  ])("with %s is none", (_, text) => expect(isRefused(parseTlogProof(text))).toBe(true))

  it("is never written of what cannot be", () => {
    expect(() => formatTlogProof({ index: -1, path: [], checkpoint: note })).toThrow(RangeError)
    expect(() => formatTlogProof({ index: 0, path: [new Uint8Array(31)], checkpoint: note })).toThrow(RangeError)
  })

  it("is small: under 4 KB for a million entries", () => {
    const proof = formatTlogProof({
      index: 999_999,
      path: Array.from({ length: 20 }, (_, n) => hash(n)),
      checkpoint: note
    })
    expect(Buffer.byteLength(proof)).toBeLessThan(4096)
  })
})
