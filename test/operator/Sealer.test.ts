/** The sealer under the operator's login: one leaf an entry, one tree, whatever ends when. */
import { layer } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { expect } from "vitest"
import { verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import { parseVerifierKey } from "../../src/domain/SignedNote.ts"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { DatabaseFailure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import { createCity, provisionAtlas } from "../support/Atlas.ts"
import { connect, Database, query, withDatabase } from "../support/Database.ts"
import { leavesOf, logName, makeKeys, naiveRoot, writePlatform } from "../support/Sealing.ts"

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))
const nowhere = { publishDir: undefined, witnesses: [], outside: undefined }

/** What a round came to: `sealed`, a SQLSTATE of ours, or the error. */
const codeOf = (outcome: Result.Result<unknown, unknown>): string => {
  if (Result.isSuccess(outcome)) return "sealed"
  const { failure } = outcome
  return failure instanceof DatabaseFailure && failure.reason._tag === "Platform"
    ? failure.reason.code
    : String(failure)
}

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

  it.effect("goes on after being killed at any statement: no gap, no fork, no second leaf", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      const keys = yield* makeKeys()
      const real = yield* Fence
      let killed = 0
      for (let at = 0; ; at++) {
        yield* writePlatform(operatorUrl, 40)
        let count = 0
        let reached = false
        /** Ends the backend once the statement was carried out, before anything after it. */
        const deadly = Fence.of({
          ...real,
          transaction: (f) =>
            real.transaction((tx) =>
              f({
                ...tx,
                query: (asked) =>
                  Effect.tap(tx.query(asked), () =>
                    count++ === at
                      ? Effect.gen(function* () {
                          reached = true
                          const { rows } = yield* tx.query(statement("select pg_backend_pid()::int4 as pid"))
                          yield* Effect.orDie(
                            query(superuserUrl, "select pg_terminate_backend($1::int4, 5000)", [rows[0]?.pid])
                          )
                        })
                      : Effect.void
                  )
              })
            )
        })
        const dying = yield* Effect.provideService(Sealer.make({ ...nowhere, batch: 15 }), Fence, deadly)
        const outcome = yield* Effect.result(dying.round(keys))
        if (!reached) {
          expect(outcome._tag).toBe("Success")
          break
        }
        expect(outcome._tag).toBe("Failure")
        killed++
        const between = yield* naiveRoot(superuserUrl)
        const next = yield* Sealer.make({ ...nowhere, batch: 15 })
        yield* next.check(keys)
        const made = yield* next.round(keys)
        const now = yield* naiveRoot(superuserUrl)
        expect(now.size).toBeGreaterThanOrEqual(between.size)
        expect(made).toMatchObject({ size: now.size, root: now.root })
      }
      expect(killed).toBeGreaterThan(15)
      const [{ entries } = {}] = yield* query(superuserUrl, "select count(*)::int4 as entries from platform.audit_log")
      expect((yield* naiveRoot(superuserUrl)).size).toBe(entries)
      expect(yield* query(superuserUrl, "select * from platform.audit_verify_tree(null, null, null)")).toEqual([])
    })
  )

  it.effect("grows one tree when there are two of them, while others write", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      const keys = yield* makeKeys()
      const sealers = [yield* Sealer.make({ ...nowhere, batch: 30 }), yield* Sealer.make({ ...nowhere, batch: 70 })]
      const outcomes: Array<string> = []
      const seal = (sealer: Sealer.Sealer) =>
        Effect.result(sealer.round(keys)).pipe(
          Effect.tap((outcome) => Effect.sync(() => outcomes.push(codeOf(outcome)))),
          Effect.repeat({ times: 14 })
        )
      const write = Effect.repeat(writePlatform(operatorUrl, 60), { times: 9 })
      yield* Effect.all([...sealers.map(seal), write, write], { concurrency: "unbounded" })
      // one that comes second is told that the tree is another, and nothing else happens to either
      expect(outcomes.filter((one) => one !== "sealed" && one !== "VL040")).toEqual([])
      yield* Effect.retry((sealers[0] as Sealer.Sealer).round(keys), { times: 3 })
      const [{ entries } = {}] = yield* query(superuserUrl, "select count(*)::int4 as entries from platform.audit_log")
      const naive = yield* naiveRoot(superuserUrl)
      expect(naive.size).toBe(entries)
      const [newest] = yield* query(
        superuserUrl,
        "select size::int4 as size, root from platform.audit_checkpoints order by size desc limit 1"
      )
      expect(newest).toEqual(naive)
    })
  )

  it.effect("takes an entry that was committed late, and no other lane waits for it", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      const keys = yield* makeKeys()
      const sealer = yield* Sealer.make(nowhere)
      const late = yield* connect(operatorUrl)
      yield* late.query("begin")
      yield* late.query(
        "select platform.audit_insert('platform', 'operator/late', 'operator.test', 'ok', null, null, null, null, null, null, null)"
      )
      for (let n = 0; n < 3; n++) {
        yield* writePlatform(operatorUrl, 5)
        yield* sealer.round(keys)
      }
      const before = yield* naiveRoot(superuserUrl)
      yield* late.query("commit")
      const made = yield* sealer.round(keys)
      expect(made?.size).toBe(before.size + 1)
      const leaves = yield* leavesOf(superuserUrl)
      const rows = yield* query(
        superuserUrl,
        "select id::text as id from platform.audit_log where actor = 'operator/late'"
      )
      expect(rows[0]?.id).toBe(leaves.at(-1)?.id)
    })
  )

  it.effect("leaves a lane whose next entry is gone, seals the others, and says which", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      const keys = yield* makeKeys()
      const sealer = yield* Sealer.make(nowhere)
      yield* sealer.round(keys)
      const append =
        "select taken, broken from platform.audit_seal_append(platform.audit_tree_size(), 1000, null, null)"
      const attacker = yield* connect(superuserUrl)
      yield* writePlatform(operatorUrl, 6)
      const [{ lane, seq } = {}] = yield* query(
        superuserUrl,
        "select lane::int4 as lane, (max(seq) - 3)::int4 as seq from platform.audit_log where chain = 'platform' group by lane order by max(occurred_at) desc limit 1"
      )
      yield* attacker.query("begin")
      yield* attacker.query("alter table platform.audit_log disable trigger all")
      yield* attacker.query(
        `delete from platform.audit_log where chain = 'platform' and lane = ${lane} and seq = ${seq}`
      )
      expect((yield* attacker.query(append)).rows).toEqual([{ taken: 2, broken: [{ chain: "platform", lane, seq }] }])
      expect((yield* attacker.query(append)).rows).toEqual([{ taken: 0, broken: [{ chain: "platform", lane, seq }] }])
      yield* attacker.query("rollback")
    })
  )

  it.effect("signs with both keys while they are changed, and takes no key of another name", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      const [old, next] = [yield* makeKeys(), yield* makeKeys()]
      const sealer = yield* Sealer.make(nowhere)
      const both = { name: logName, signers: [old.signers[0], next.signers[0]] as const }
      yield* writePlatform(operatorUrl, 3)
      const made = yield* sealer.round(both)
      for (const { signers } of [old, next]) {
        const verified = yield* Effect.promise(() => verifyCheckpoint(String(made?.note), [signers[0].verifier]))
        expect(Result.isSuccess(verified)).toBe(true)
      }
      const foreign = yield* makeKeys(1, "other.example")
      yield* writePlatform(operatorUrl, 3)
      const refused = yield* Effect.flip(sealer.round(foreign))
      expect(refused).toMatchObject({ _tag: "AuditKeyUnusable", message: expect.stringContaining(`--name ${logName}`) })
      const rows = yield* query(superuserUrl, "select distinct origin from platform.audit_checkpoints")
      expect(rows).toEqual([{ origin: logName }])
    })
  )

  it.effect("of an old term seals nothing", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      const keys = yield* makeKeys()
      const sealer = yield* Sealer.make(nowhere)
      yield* writePlatform(operatorUrl, 3)
      const before = yield* naiveRoot(superuserUrl)
      yield* Effect.scoped(Layer.build(Fence.layerOf({ holder: "another", source: "folder" })))
      expect(yield* Effect.flip(sealer.round(keys))).toMatchObject({ _tag: "Superseded" })
      expect(yield* naiveRoot(superuserUrl)).toEqual(before)
    })
  )
})
