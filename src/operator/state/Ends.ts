/** Ends that resources name for themselves: whether one is past, and when to look again. */

/** The longest that an end is slept for, in milliseconds: timers have an end of their own. */
const longestSleep = 3_600_000

export const isPast = (end: string | undefined): boolean => end !== undefined && Date.parse(end) <= Date.now()

/** After how many milliseconds the next of some ends is over, if any is to come; ends are told to the second. */
export const nextEnd = (ends: ReadonlyArray<string | null | undefined>): number | undefined => {
  const pauses = ends
    .flatMap((one) => (one === undefined || one === null ? [] : [Date.parse(one) - Date.now()]))
    .filter((one) => one > -1_000)
    .map((one) => Math.min(Math.max(one, 0) + 1_000, longestSleep))
  return pauses.length === 0 ? undefined : Math.min(...pauses)
}
