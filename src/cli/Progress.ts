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
  /** Draws the last state and ends the line. */
  readonly finish: Effect.Effect<void>
}

export interface ProgressOptions {
  readonly label: string
  readonly total: number
  readonly unit: string
  readonly stream?: { readonly isTTY?: boolean; readonly columns?: number; write(text: string): unknown }
}

const redrawMillis = 100
const barWidth = 30

const number = new Intl.NumberFormat("en-GB")

/** One state of the bar as text: label, bar, share, count and rate. */
export const renderProgress = (label: string, done: number, total: number, millis: number, unit: string): string => {
  const share = total === 0 ? 1 : Math.min(1, done / total)
  const filled = Math.round(share * barWidth)
  const rate = millis <= 0 ? 0 : Math.round((done * 1000) / millis)
  const bar = "█".repeat(filled) + "░".repeat(barWidth - filled)
  return `${label} ${bar} ${String(Math.floor(share * 100)).padStart(3)} %  ${number.format(done)}/${number.format(total)} ${unit}  ${number.format(rate)}/s`
}

export const makeProgress = (options: ProgressOptions): Effect.Effect<Progress> =>
  Effect.map(Clock.currentTimeMillis, (started) => {
    const stream = options.stream ?? process.stderr
    const live = stream.isTTY === true
    let done = 0
    let drawnAt = 0
    let tenth = 0

    const draw = (now: number, last: boolean) => {
      const text = renderProgress(options.label, done, options.total, now - started, options.unit)
      if (live) stream.write(`\r\u001b[K${text}${last ? "\n" : ""}`)
      else stream.write(`${text}\n`)
    }

    return {
      advance: (count) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          done += count
          const reached = Math.floor((done * 10) / Math.max(1, options.total))
          if (live ? now - drawnAt < redrawMillis : reached <= tenth) return
          drawnAt = now
          tenth = reached
          if (done < options.total) draw(now, false)
        }),
      finish: Effect.map(Clock.currentTimeMillis, (now) => draw(now, true))
    }
  })
