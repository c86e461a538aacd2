/**
 * Definitions compiled on first use and kept, the one used longest ago making room.
 *
 * What is compiled depends on its own row alone, and is good as long as that very row is the one in force: refs are
 * followed through the registry at each request. So nothing has to be told of a change, and a hit is two look-ups.
 */
import { Result } from "effect"
import type { DefinitionRow } from "./RegistrySnapshot.ts"

interface Entry<A> {
  readonly row: DefinitionRow
  readonly compiled: Result.Result<A, string>
}

/** See the module. */
export class CompiledTypes<A> {
  private readonly entries = new Map<string, Entry<A>>()
  private readonly capacity: number
  private readonly compile: (row: DefinitionRow) => Result.Result<A, string>

  constructor(capacity: number, compile: (row: DefinitionRow) => Result.Result<A, string>) {
    this.capacity = Math.max(1, capacity)
    this.compile = compile
  }

  get size(): number {
    return this.entries.size
  }

  /** What is compiled of a row; a failure where it cannot be compiled, which is kept as well. */
  get(row: DefinitionRow): Result.Result<A, string> {
    const known = this.entries.get(row.path)
    this.entries.delete(row.path)
    const entry = known?.row === row ? known : { row, compiled: this.attempt(row) }
    // a map keeps the order of insertion: what was used last stands last
    this.entries.set(row.path, entry)
    if (this.entries.size > this.capacity) {
      const [oldest] = this.entries.keys()
      if (oldest !== undefined) this.entries.delete(oldest)
    }
    return entry.compiled
  }

  /** Forgets what is no longer in force, to give memory back. */
  retain(inForce: (row: DefinitionRow) => boolean): void {
    for (const [path, { row }] of this.entries) if (!inForce(row)) this.entries.delete(path)
  }

  /** One definition that the compiler stumbles over must not take the others along. */
  private attempt(row: DefinitionRow): Result.Result<A, string> {
    try {
      return this.compile(row)
    } catch (error) {
      return Result.fail(error instanceof Error ? error.message : String(error))
    }
  }
}
