/**
 * A C2SP witness as a small HTTP server: it verifies signature and consistency as the page asks for, remembers the largest
 * checkpoint, and cosigns. `misbehave` makes its next answers others.
 */
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect, Result } from "effect"
import { fromBase64 } from "../../src/domain/Base64.ts"
import { verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import { cosign } from "../../src/domain/Cosignature.ts"
import { generateSignerKey, keyTypes, parseSignerKey } from "../../src/domain/NoteKey.ts"
import { formatSignatureLine, type NoteVerifier } from "../../src/domain/SignedNote.ts"
import { sameHash, verifyConsistency } from "../../src/domain/TreeProof.ts"

/** When its clock begins: each cosignature is a second later than the one before, so no two lines are the same. */
export const witnessEpoch = 1_770_000_000

type Answer = (response: ServerResponse) => void

const readBody = async (request: AsyncIterable<Buffer>): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks).toString("utf8")
}

/** Starts one for as long as the scope is open; it trusts these keys, for whichever origin they sign. */
export const startWitness = Effect.fnUntraced(function* (trusted: ReadonlyArray<NoteVerifier>) {
  const pair = yield* Effect.promise(() => generateSignerKey("witness.example/w1", keyTypes.cosignature))
  const signer = Result.getOrThrow(yield* Effect.promise(() => parseSignerKey(pair.signerKey, keyTypes.cosignature)))
  const seen = new Map<string, { readonly size: number; readonly root: Uint8Array }>()
  const misbehaviour: Array<Answer> = []
  const requests: Array<string> = []
  let time = witnessEpoch

  const answer = async (body: string, response: ServerResponse): Promise<void> => {
    const refuse = (status: number, text = "", type = "text/plain") => {
      response.writeHead(status, { "content-type": type }).end(text)
    }
    const split = body.indexOf("\n\n")
    const [oldLine = "", ...proofLines] = body.slice(0, split).split("\n")
    const old = /^old (0|[1-9][0-9]*)$/u.exec(oldLine)?.[1]
    const proof = proofLines.map(fromBase64)
    if (split < 0 || old === undefined || proof.some((hash) => hash === undefined)) return refuse(400)
    const verified = await verifyCheckpoint(body.slice(split + 2), trusted)
    if (Result.isFailure(verified)) return refuse(403)
    const { body: text, checkpoint } = verified.success
    const last = seen.get(checkpoint.origin) ?? { size: 0, root: undefined }
    if (Number(old) > checkpoint.size) return refuse(400)
    if (Number(old) !== last.size) return refuse(409, `${last.size}\n`, "text/x.tlog.size")
    if (last.root !== undefined) {
      if (last.size === checkpoint.size && !sameHash(last.root, checkpoint.root)) {
        return refuse(409, `${last.size}\n`, "text/x.tlog.size")
      }
      const path = proof as ReadonlyArray<Uint8Array>
      if (!verifyConsistency(last.size, last.root, checkpoint.size, checkpoint.root, path)) return refuse(422)
    } else if (proof.length > 0) return refuse(422)
    seen.set(checkpoint.origin, checkpoint)
    refuse(200, `${formatSignatureLine(await cosign(text, signer, time++))}\n`)
  }

  const server = createServer((request, response) => {
    void readBody(request).then((body) => {
      requests.push(body)
      const bad = misbehaviour.shift()
      if (bad !== undefined) return bad(response)
      if (request.method !== "POST" || request.url !== "/w/add-checkpoint") return response.writeHead(404).end()
      return answer(body, response)
    })
  })
  yield* Effect.promise(() => new Promise<void>((done) => server.listen(0, "127.0.0.1", done)))
  yield* Effect.addFinalizer(() =>
    Effect.promise(async () => {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    })
  )
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/w`,
    verifier: signer.verifier,
    /** Origin to the largest checkpoint that was cosigned. */
    seen,
    requests,
    misbehave: (...answers: ReadonlyArray<Answer>) => misbehaviour.push(...answers)
  }
})
