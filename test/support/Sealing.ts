/**
 * A log to seal and a sealer for it: entries in bulk as the operator writes them, keys, and the tree as TypeScript sees it.
 */
import { ConfigProvider, Effect, Layer } from "effect"
import { rootHash } from "../../src/domain/MerkleTree.ts"
import { generateSignerKey, parseSignerKey } from "../../src/domain/SignedNote.ts"
import type { AuditKeys } from "../../src/operator/evidence/AuditKeys.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { configOf, query, type TestDatabase } from "./Database.ts"

export const logName = "log.example/velocity"

/** Keys that were made now, all of one name, and their verifier keys' texts. */
export const makeKeys = (
  count = 1,
  name = logName
): Effect.Effect<AuditKeys & { readonly texts: ReadonlyArray<string>; readonly verifierKeys: ReadonlyArray<string> }> =>
  Effect.promise(async () => {
    const pairs = await Promise.all(Array.from({ length: count }, () => generateSignerKey(name)))
    const signers = []
    for (const { signerKey } of pairs) {
      const parsed = await parseSignerKey(signerKey)
      if (parsed._tag === "Failure") throw parsed.failure
      signers.push(parsed.success)
    }
    return {
      name,
      signers: signers as unknown as AuditKeys["signers"],
      texts: pairs.map(({ signerKey }) => signerKey),
      verifierKeys: pairs.map(({ verifierKey }) => verifierKey)
    }
  })

/** Entries in the chain `platform`, in one transaction and one lane, as `velocity_operator`. */
export const writePlatform = (operatorUrl: string, count: number) =>
  query(
    operatorUrl,
    `select count(platform.audit_insert('platform', 'operator/test', 'operator.test', 'ok', null, null, jsonb_build_object('n', n), null, null, null, null))::int4 as made
     from generate_series(1, $1::int4) as n`,
    [count]
  )

/** The leaves as the runs say they are, in order, with their entries' hashes. */
export const leavesOf = (superuserUrl: string) =>
  query(
    superuserUrl,
    `select (l.index + a.seq - l.seq)::int4 as index, a.chain, a.lane::int4 as lane, a.seq::int4 as seq, a.id::text as id, a.hash
     from platform.audit_leaves l join platform.audit_log a
       on a.chain = l.chain and a.lane = l.lane and a.seq between l.seq and l.seq + l.count - 1 order by 1`
  )

/** The head over all leaves, computed without tiles; and that there is exactly one leaf for each entry. */
export const naiveRoot = (superuserUrl: string) =>
  Effect.gen(function* () {
    const leaves = yield* leavesOf(superuserUrl)
    const distinct = new Set(leaves.map(({ chain, lane, seq }) => `${chain} ${lane} ${seq}`))
    if (distinct.size !== leaves.length || leaves.some(({ index }, at) => index !== at)) {
      throw new Error("the leaves have a gap, or an entry twice")
    }
    return { size: leaves.length, root: rootHash(leaves.map(({ hash }) => hash as Uint8Array)) }
  })

/** Seals everything that a database has, under keys that are given or made now, and answers its checkpoint. */
export const seal = (database: TestDatabase, given?: AuditKeys) =>
  Effect.gen(function* () {
    const keys = given ?? (yield* makeKeys())
    const sealer = yield* Sealer.make({ publishDir: undefined, witnesses: [], outside: undefined })
    return yield* sealer.round(keys)
  }).pipe(
    Effect.provide(
      Fence.layerOf({ holder: "test", source: "folder" }).pipe(
        Layer.provideMerge(OperatorSql.layer),
        Layer.provide(ConfigProvider.layer(configOf(database)))
      )
    ),
    Effect.scoped,
    Effect.runPromise
  )
