/**
 * C2SP tlog-cosignature, version 1 (Ed25519): a witness's word that, at a time, this checkpoint was the largest of its log
 * that it had seen, and that each it had seen grew from the one before. It is a signature line of the checkpoint's note,
 * with a key of its own type:
 *
 *     keyId || timestamp, 8 bytes || Ed25519("cosignature/v1\ntime <timestamp>\n" || the checkpoint)
 */
import { Result } from "effect"
import { parseCheckpoint } from "./Checkpoint.ts"
import { ed25519SignatureLength, signEd25519, verifyEd25519 } from "./Ed25519.ts"
import { isSameKey, keyLabel, keyTypes, type NoteSigner, type NoteVerifier, parseVerifierKey } from "./NoteKey.ts"
import { concatBytes, utf8 } from "./Sha256.ts"
import { NoteFault, type NoteSignature, type SignedNote } from "./SignedNote.ts"

export interface Cosigned {
  readonly witness: NoteVerifier
  /** Seconds since 1970-01-01 UTC, by the witness's clock. */
  readonly time: number
}

const timeLength = 8

/** Reads a witness's verifier key. */
export const parseWitnessKey = (text: string) => parseVerifierKey(text, keyTypes.cosignature)

/** What is signed. */
export const cosignedMessage = (time: number, body: string): Uint8Array => utf8(`cosignature/v1\ntime ${time}\n${body}`)

/** Cosigns a checkpoint, as a witness does. `body` is the note's text; throws RangeError where it is no checkpoint. */
export const cosign = async (body: string, witness: NoteSigner, time: number): Promise<NoteSignature> => {
  if (witness.type !== keyTypes.cosignature) throw new RangeError("only a witness's key cosigns")
  if (!Number.isSafeInteger(time) || time < 0) throw new RangeError("a time is whole seconds since 1970")
  if (Result.isFailure(parseCheckpoint(body))) throw new RangeError("only a checkpoint is cosigned")
  const timestamp = new Uint8Array(timeLength)
  new DataView(timestamp.buffer).setBigUint64(0, BigInt(time))
  const signature = await signEd25519(witness.privateKey, cosignedMessage(time, body))
  return { name: witness.name, keyId: witness.keyId, signature: concatBytes(timestamp, signature) }
}

/** When a cosignature says that it was made; undefined where it is none of this version, or of a time beyond 2^53. */
export const cosignatureTime = ({ signature }: NoteSignature): number | undefined => {
  if (signature.length !== timeLength + ed25519SignatureLength) return undefined
  const time = Number(new DataView(signature.buffer, signature.byteOffset).getBigUint64(0))
  return Number.isSafeInteger(time) ? time : undefined
}

/** Whether this witness made this cosignature over this text, and when; undefined if not. */
export const verifyCosignature = async (
  body: string,
  cosignature: NoteSignature,
  witness: NoteVerifier
): Promise<number | undefined> => {
  const time = cosignatureTime(cosignature)
  if (witness.type !== keyTypes.cosignature || !isSameKey(cosignature, witness) || time === undefined) return undefined
  const signature = cosignature.signature.slice(timeLength)
  return (await verifyEd25519(witness.publicKey, cosignedMessage(time, body), signature)) ? time : undefined
}

/**
 * The cosignatures of the witnesses that are trusted; those of others are passed over, and a bad one of a trusted witness
 * refuses the note. It says nothing of the log's own signature: `verifyCheckpoint` does.
 */
export const verifyCosignatures = async (
  { body, signatures }: SignedNote,
  witnesses: ReadonlyArray<NoteVerifier>
): Promise<Result.Result<ReadonlyArray<Cosigned>, NoteFault>> => {
  const cosigned: Array<Cosigned> = []
  for (const witness of witnesses.filter((one) => one.type === keyTypes.cosignature)) {
    const signature = signatures.find((one) => isSameKey(one, witness))
    if (signature === undefined || cosigned.some((one) => isSameKey(one.witness, witness))) continue
    const time = await verifyCosignature(body, signature, witness)
    if (time === undefined) {
      const message = `the cosignature of ${keyLabel(witness)} is not over this checkpoint`
      return Result.fail(new NoteFault({ reason: "bad_signature", message }))
    }
    cosigned.push({ witness, time })
  }
  return Result.succeed(cosigned)
}
