/**
 * Ways to do one thing, measured turn about, so that whatever else the machine does meets all of them: the figure of each
 * is the median of its turns, and ratios are of those.
 */

/** How a bench is run. */
export interface Effort {
  /** Seconds a turn. */
  readonly seconds: number
  /** Turns of each contestant. */
  readonly rounds: number
}

/** Does its work for about so many seconds and answers how much of it was done in a second. */
export type Contestant = (seconds: number) => Promise<number>

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

/** The rate of each contestant, by name; undefined for one that cannot run here. A short turn of each comes first, uncounted. */
export const turnAbout = async <Contestants extends Readonly<Record<string, Contestant | undefined>>>(
  contestants: Contestants,
  { rounds, seconds }: Effort,
  onTurn: (name: string) => void
): Promise<{ readonly [Name in keyof Contestants]: number }> => {
  const all = Object.entries(contestants).flatMap(([name, run]) =>
    run === undefined ? [] : [{ name, run, rates: [] as Array<number> }]
  )
  for (const { run } of all) await run(Math.min(1, seconds))
  for (let round = 0; round < rounds; round++) {
    for (const { name, rates, run } of all) {
      onTurn(name)
      rates.push(await run(seconds))
    }
  }
  return Object.fromEntries(all.map(({ name, rates }) => [name, median(rates)])) as {
    readonly [Name in keyof Contestants]: number
  }
}
