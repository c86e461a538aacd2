/** What somebody can do to a log who owns the database and knows how it is hashed: entries, hashes and the tree made anew. */

/** The hash of a row `a` of the log as the writer would have made it. */
export const hashed = `sha256('\\x00'::bytea || record_send(row(a.chain, a.lane, a.seq, a.occurred_at, a.id, a.actor, a.action, a.outcome,
  a.schema_path, a.entity_id, a.payload, a.request_id, a.reason, a.ticket_ref, a.fail_modes, a.db_login, a.db_role, a.prev_hash)))`

/** Every hash from an entry to the end of its lane made anew; `where` says the lanes, of rows `a`. */
export const relink = (where: string, from: number) => `do $$
  declare e record; p bytea;
  begin
    for e in select chain, lane, seq from platform.audit_log a where ${where} and seq >= ${from} order by chain, lane, seq loop
      select a.hash into p from platform.audit_log a where a.chain = e.chain and a.lane = e.lane and a.seq = e.seq - 1;
      update platform.audit_log a set prev_hash = coalesce(p, prev_hash) where a.chain = e.chain and a.lane = e.lane and a.seq = e.seq;
      update platform.audit_log a set hash = ${hashed} where a.chain = e.chain and a.lane = e.lane and a.seq = e.seq;
    end loop;
  end $$`

/** The tree made anew over the log as it is, by the function that makes it. */
export const regrow = [
  "delete from platform.audit_leaves",
  "delete from platform.audit_tiles",
  "select * from platform.audit_seal_append(0, 100000, null, null)"
]

/** Every guard of the log and of its evidence out of the way. */
export const unguarded = ["audit_log", "audit_leaves", "audit_tiles", "audit_checkpoints", "audit_seals"].map(
  (table) => `alter table platform.${table} disable trigger all`
)
