/**
 * Definitions compiled on first use and kept, the one used longest ago making room.
 *
 * A compiled value depends on its own row and on those it looked at while it was compiled (the targets of refs). It is
 * good as long as all of them are the very rows in force; that is asked again only after the snapshot changed, so a hit
 * is two look-ups.
 */
import { Result } from "effect"
import type { DefinitionRow } from "./RegistrySnapshot.ts"

/** Finds what is served under a path or storage path now. */
export type Serving = (pathOrStorage: string) => DefinitionRow | undefined

interface Entry<A> {
  readonly compiled: Result.Result<A, string>
  /** What was looked at, under which name, and what was there. */
  readonly seen: ReadonlyMap<string, DefinitionRow | undefined>
  /** The snapshot's number when that was last compared. */
  checked: number
}

/** See the module. */
export class CompiledTypes<A> {
  private readonly entries = new Map<string, Entry<A>>()
  private readonly capacity: number
  private readonly serving: Serving
  private readonly compile: (row: DefinitionRow, target: Serving) => Result.Result<A, string>
  private round = 0

  constructor(
    capacity: number,
    serving: Serving,
    compile: (row: DefinitionRow, target: Serving) => Result.Result<A, string>
  ) {
    this.capacity = Math.max(1, capacity)
    this.serving = serving
    this.compile = compile
  }

  get size(): number {
    return this.entries.size
  }

  /** Says that what is served may be different now. */
  changed(): void {
    this.round += 1
  }

  /** What is compiled for a path; undefined where nothing is served, a failure where it cannot be compiled. */
  get(path: string): Result.Result<A, string> | undefined {
    const known = this.entries.get(path)
    if (known !== undefined) {
      this.entries.delete(path)
      if (known.checked === this.round || this.isGood(known)) {
        this.entries.set(path, known)
        return known.compiled
      }
    }
    const row = this.serving(path)
    if (row === undefined || row.path !== path) return undefined
    const seen = new Map<string, DefinitionRow | undefined>([[path, row]])
    const target = (name: string): DefinitionRow | undefined => {
      const found = this.serving(name)
      seen.set(name, found)
      return found
    }
    this.entries.set(path, { compiled: this.attempt(row, target), seen, checked: this.round })
    if (this.entries.size > this.capacity) {
      const [oldest] = this.entries.keys()
      if (oldest !== undefined) this.entries.delete(oldest)
    }
    return this.entries.get(path)?.compiled
  }

  private isGood(entry: Entry<A>): boolean {
    for (const [name, row] of entry.seen) if (this.serving(name) !== row) return false
    entry.checked = this.round
    return true
  }

  /** One definition that the compiler stumbles over must not take the others along. */
  private attempt(row: DefinitionRow, target: Serving): Result.Result<A, string> {
    try {
      return this.compile(row, target)
    } catch (error) {
      return Result.fail(error instanceof Error ? error.message : String(error))
    }
  }
}
