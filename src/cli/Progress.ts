/**
 * A progress bar for long work, on stderr, so that what a command prints can still be piped.
 *
 * On a terminal one line is redrawn at most ten times a second; elsewhere (CI, a pipe) a line is written at each tenth
 * of the way, so that a log shows progress without thousands of lines.
 */
import { Clock, Effect } from "effect"

export interface Progress {
  /** Says that `count` more are done. */
  readonly advance: (count: number) => Effect.Effect<void>
  /** Draws the last state and ends the line; of what was done in the end, where that is known better. */
  readonly finish: (done?: number) => Effect.Effect<void>
}

export interface ProgressOptions {
  readonly label: string
  /** Where it is not known there is no bar. */
  readonly total: number | undefined
  readonly unit: string
  readonly stream?: { readonly isTTY?: boolean; readonly columns?: number; write(text: string): unknown }
}

const redrawMillis = 100
const barWidth = 30

const number = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 })

/** A state of long work. */
export interface State {
  readonly label: string
  readonly done: number
  readonly total: number | undefined
  readonly unit: string
  readonly millis: number
}

/** A rate of the first moments would be that of the buffers. */
const rateAfterMillis = 1_000

/** One state of the bar as text: label, bar, share, count and rate. */
export const renderProgress = ({ done, label, millis, total, unit }: State, last = false): string => {
  const rate = millis > 0 && (last || millis >= rateAfterMillis) ? `  ${number.format((done * 1000) / millis)}/s` : ""
  if (total === undefined) return `${label}  ${number.format(done)} ${unit}${rate}`
  const share = total === 0 ? 1 : Math.min(1, done / total)
  const filled = Math.round(share * barWidth)
  const bar = "█".repeat(filled) + "░".repeat(barWidth - filled)
  return `${label} ${bar} ${String(Math.floor(share * 100)).padStart(3)} %  ${number.format(done)}/${number.format(total)} ${unit}${rate}`
}

export const makeProgress = (options: ProgressOptions): Effect.Effect<Progress> =>
  Effect.map(Clock.currentTimeMillis, (started) => {
    const stream = options.stream ?? process.stderr
    const live = stream.isTTY === true
    let done = 0
    let drawnAt = 0
    let tenth = 0

    const draw = (now: number, last: boolean) => {
      const { label, total, unit } = options
      const text = renderProgress({ label, done, total, unit, millis: now - started }, last)
      if (live) stream.write(`\r\u001b[K${text}${last ? "\n" : ""}`)
      else stream.write(`${text}\n`)
    }

    return {
      advance: (count) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          done += count
          const reached = options.total === undefined ? 0 : Math.floor((done * 10) / Math.max(1, options.total))
          if (live ? now - drawnAt < redrawMillis : reached <= tenth) return
          drawnAt = now
          tenth = reached
          if (done < (options.total ?? Number.POSITIVE_INFINITY)) draw(now, false)
        }),
      finish: (count) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          done = count ?? done
          draw(now, true)
        })
    }
  })
