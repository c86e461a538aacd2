/**
 * An index that is built waits for every older snapshot of the server, which may be hours: whose transaction it waits for
 * stands in the status, and the operator looks after other resources meanwhile.
 */
import { it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { describe, expect } from "vitest"
import { connect } from "../support/Database.ts"
import { a, definition, folderWorld } from "./FolderWorld.ts"

describe("an index that waits for an older snapshot", () => {
  it.live("names the pid in the status, and keeps nobody waiting", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, pid, table, until, write } = yield* folderWorld
        yield* write("thing.yaml", definition(org, "thing", [{ ...a, indexed: true }]))
        const waiting = yield* until("thing", "waits for")
        expect(waiting).toBe(
          `Evolving: step 1 of 2: index a; it waits for the transaction of pid ${pid} (velocity_api, an export)`
        )
        // another resource has its turn, and is served
        yield* write("other.yaml", definition(org, "other", [a]))
        yield* until("other", "Provisioned: ")
        expect(yield* until("thing", "waits for")).toBe(waiting)
        yield* exporter.query("rollback")
        yield* until("thing", "Provisioned: ")
        const indexes = yield* look(
          `select i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = '${table}'::regclass and c.relname like 'ix\\_%'`
        )
        expect(indexes).toEqual([{ valid: true }])
      })
    )
  )

  it.live("says of records that contradict it what it would have said in place", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { database, exporter, org, table, until, write } = yield* folderWorld
        yield* exporter.query("rollback")
        // a second record with the first one's value, which nobody sees yet and the build waits for
        const writer = yield* connect(database.superuserUrl)
        yield* writer.query("begin")
        yield* writer.query(
          `insert into ${table} (id, created_at, created_by, updated_at, updated_by, a)
           values (gen_random_uuid(), now(), 'x', now(), 'x', 'a1')`
        )
        const unique = [{ ...a, unique: true }]
        yield* write("thing.yaml", definition(org, "thing", unique))
        const [, hash = ""] = /plan (p[0-9a-f]+):/u.exec(yield* until("thing", "ApprovalRequired: ")) ?? []
        yield* write("thing.yaml", definition(org, "thing", unique, "v1", { "velocity.sh/approve-plan": hash }))
        yield* until("thing", "unique a; it waits for")
        yield* writer.query("commit")
        expect(yield* until("thing", "DataConflict: ")).toContain("records that are there contradict it: unique a")
      })
    )
  )

  it.live("leaves connections for everything else, however many wait", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, until, write } = yield* folderWorld
        const objects = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
        for (const object of objects) yield* write(`${object}.yaml`, definition(org, object, [a]))
        for (const object of objects) {
          yield* until(object, "Provisioned: ")
          yield* look(
            `insert into ${org}_shop_eu.${object}_v1 (id, created_at, created_by, updated_at, updated_by, a)
             values (gen_random_uuid(), now(), 'x', now(), 'x', 'a')`
          )
        }
        for (const object of objects) yield* write(`${object}.yaml`, definition(org, object, [{ ...a, indexed: true }]))
        for (const object of objects) yield* until(object, "Evolving: step 1 of 2")
        const building = yield* look(
          "select count(*)::int4 as n from pg_stat_progress_create_index where datname = current_database()"
        )
        expect(building).toEqual([{ n: 3 }])
        yield* write("other.yaml", definition(org, "other", [a]))
        yield* until("other", "Provisioned: ")
        yield* exporter.query("rollback")
        for (const object of objects) yield* until(object, "Provisioned: ")
      })
    )
  )

  it.live("is given up when its definition is changed", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, table, until, write } = yield* folderWorld
        yield* write("thing.yaml", definition(org, "thing", [{ ...a, indexed: true }]))
        yield* until("thing", "waits for")
        yield* write("thing.yaml", definition(org, "thing", [a]))
        yield* until("thing", "Provisioned: ")
        const building = yield* look("select pid from pg_stat_progress_create_index where datname = current_database()")
        expect(building).toEqual([])
        yield* exporter.query("rollback")
        const invalid = yield* look(
          `select 1 as one from pg_index where indrelid = '${table}'::regclass and not indisvalid`
        )
        expect(invalid).toEqual([])
      })
    )
  )

  it.live("is given up with a version that goes before it has come, and holds up no other version", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, remove, table, until, write } = yield* folderWorld
        const shut = { ...a, indexed: true }
        yield* write("thing-v2.yaml", definition(org, "thing", [shut], "v2"))
        yield* until("thing-v2", "waits for")
        yield* write("thing.yaml", definition(org, "thing", [a, { ...a, name: "b" }]))
        yield* until("thing", "VersionEvolving: ")
        yield* remove("thing-v2.yaml")
        yield* look(
          `select from pg_attribute where attrelid = '${table}'::regclass and attname = 'b' and not attisdropped`
        ).pipe(Effect.repeat({ until: (rows) => rows.length === 1, schedule: Schedule.spaced("50 millis") }))
        yield* until("thing", "Provisioned: ")
        expect(yield* look("select path from platform.plans where state in ('Waiting', 'Running')")).toEqual([])
        expect(yield* look("select pid from pg_stat_progress_create_index where datname = current_database()")).toEqual(
          []
        )
        yield* exporter.query("rollback")
      })
    )
  )

  it.live("is given up too where its operator was killed before it had said anything of it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, remove, restart, until, write } = yield* folderWorld
        yield* write("thing-v2.yaml", definition(org, "thing", [{ ...a, indexed: true }], "v2"))
        yield* until("thing-v2", "waits for")
        yield* restart(
          Effect.gen(function* () {
            // as it is between the plan's commit and the first status
            yield* look("delete from platform.resource_status where kind = 'SchemaDefinition' and name = 'thing-v2'")
            yield* remove("thing-v2.yaml")
            yield* write("thing.yaml", definition(org, "thing", [a, { ...a, name: "b" }]))
          })
        )
        yield* until("thing", "VersionEvolving: ")
        yield* until("thing", "Provisioned: ")
        expect(yield* look("select path, state from platform.plans where state in ('Waiting', 'Running')")).toEqual([])
        yield* exporter.query("rollback")
      })
    )
  )
})
