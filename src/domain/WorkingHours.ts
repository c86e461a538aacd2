/**
 * When an organisation works: days and hours in a time zone. A time is judged as the wall clock there shows it, so a day
 * on which clocks change is still from nine to five.
 */
import { Schema } from "effect"

export const weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const
type Weekday = (typeof weekdays)[number]

const isTimeZone = (name: string): boolean => {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone !== ""
  } catch {
    return false
  }
}

const TimeZone = Schema.String.check(
  Schema.isMaxLength(64),
  // an offset such as +02:00 is known to Intl and knows no summer
  Schema.makeFilter(
    (name) => (/^[A-Za-z]/u.test(name) && isTimeZone(name)) || "must be an IANA time zone, such as Europe/Berlin",
    { operatorJudges: true }
  )
)

const ClockTime = Schema.String.check(
  Schema.isMaxLength(5),
  Schema.isPattern(/^(?:[01][0-9]|2[0-3]):[0-5][0-9]$/u, { message: "an hour and minute from 00:00 to 23:59" })
)

/** Where `to` is before `from`, work ends on the day after. */
export const WorkingHours = Schema.Struct({
  timeZone: TimeZone.annotateKey({
    description: "The IANA time zone whose clocks say the time, such as Europe/Berlin"
  }),
  days: Schema.Array(Schema.Literals(weekdays))
    .check(Schema.isMinLength(1), Schema.isMaxLength(7), Schema.isUnique())
    .annotateKey({ description: "The days on which people work" }),
  from: ClockTime.annotateKey({ description: "When work begins, such as 08:00" }),
  to: ClockTime.annotateKey({ description: "When work ends; on the day after, where it is before from" })
}).check(
  Schema.makeFilter(({ from, to }) => from !== to || "from and to must differ", {
    celRules: [{ rule: "self.from != self.to", message: "from and to must differ", fieldPath: ".to" }]
  })
)
export type WorkingHours = typeof WorkingHours.Type

const formats = new Map<string, Intl.DateTimeFormat>()

const formatOf = (timeZone: string): Intl.DateTimeFormat => {
  const known = formats.get(timeZone)
  if (known !== undefined) return known
  const made = new Intl.DateTimeFormat("en-US", {
    timeZone,
    weekday: "short",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23"
  })
  formats.set(timeZone, made)
  return made
}

/** The day and the hour that clocks in a time zone show. */
const wallClock = (timeZone: string, millis: number): { readonly day: Weekday; readonly time: string } => {
  const parts = new Map(
    formatOf(timeZone)
      .formatToParts(millis)
      .map(({ type, value }) => [type, value])
  )
  return {
    day: (parts.get("weekday") ?? "").toLowerCase() as Weekday,
    time: `${parts.get("hour")}:${parts.get("minute")}`
  }
}

const dayBefore = (day: Weekday): Weekday => weekdays[(weekdays.indexOf(day) + 6) % 7] as Weekday

/** Whether an organisation works at a time (milliseconds since 1970): from the first minute to the one before `to`. */
export const isWorking = ({ days, from, timeZone, to }: WorkingHours, millis: number): boolean => {
  const { day, time } = wallClock(timeZone, millis)
  if (from < to) return days.includes(day) && time >= from && time < to
  return (days.includes(day) && time >= from) || (days.includes(dayBefore(day)) && time < to)
}

/** A stretch of time in milliseconds since 1970; `to` is no part of it. */
export interface Span {
  readonly from: number
  readonly to: number
}

const minuteMillis = 60_000

/** When within whole minutes an organisation does not work: what `isWorking` says of each, put together. */
export const idleSpans = (hours: WorkingHours, from: number, to: number): ReadonlyArray<Span> => {
  const spans: Array<{ readonly from: number; to: number }> = []
  for (let minute = from; minute < to; minute += minuteMillis) {
    if (isWorking(hours, minute)) continue
    const last = spans.at(-1)
    if (last?.to === minute) last.to = minute + minuteMillis
    else spans.push({ from: minute, to: minute + minuteMillis })
  }
  return spans
}
