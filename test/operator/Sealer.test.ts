/** The sealer under the operator's login: one leaf an entry, one tree, whatever ends when. */
import { layer } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { expect } from "vitest"
import { verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import { parseVerifierKey } from "../../src/domain/SignedNote.ts"
import { Fence } from "../../src/operator/Fence.ts"
import * as Sealer from "../../src/operator/Sealer.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { createCity, provisionAtlas } from "../support/Atlas.ts"
import { Database, query, withDatabase } from "../support/Database.ts"
import { logName, makeKeys, naiveRoot, writePlatform } from "../support/Sealing.ts"

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))
const nowhere = { publishDir: undefined, witnesses: [], outside: undefined }

layer(withDatabase(services), { excludeTestServices: true })("the sealer", (it) => {
  it.effect("makes each entry one leaf, in lanes' order, and signs the head as a C2SP checkpoint", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, org, superuserUrl } = yield* Database
      const keys = yield* makeKeys(2)
      const sealer = yield* Sealer.make(nowhere)
      expect(yield* sealer.round(keys)).toBeUndefined()
      const atlas = yield* provisionAtlas(operatorUrl, org)
      for (const name of ["Oslo", "Bergen", "Bodø"]) yield* createCity(apiUrl, atlas, name)
      yield* writePlatform(operatorUrl, 700)
      const first = yield* sealer.round(keys)
      const naive = yield* naiveRoot(superuserUrl)
      expect(first).toMatchObject({ epoch: 1, origin: logName, size: naive.size, root: naive.root })
      for (const text of keys.verifierKeys) {
        const verifier = Result.getOrThrow(parseVerifierKey(text))
        const verified = yield* Effect.promise(() => verifyCheckpoint(String(first?.note), [verifier]))
        expect(Result.getOrThrow(verified).checkpoint).toEqual({
          origin: logName,
          size: naive.size,
          root: naive.root,
          extensions: []
        })
      }
      // nothing new, nothing signed
      expect(yield* sealer.round(keys)).toBeUndefined()
      const rows = yield* query(superuserUrl, "select count(*)::int4 as n from platform.audit_log")
      expect(rows).toEqual([{ n: naive.size }])
    })
  )
})
