/**
 * What is counted of requests. Labels are bounded: a route is a template of the contract, a method one of its own, a
 * status a number; nothing that a caller makes up becomes a label.
 */
import { Context, Metric } from "effect"
import type { Route } from "../api/Routes.ts"

/** Seconds; a read takes one to five milliseconds. */
const boundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

const requests = Metric.counter("velocity_http_requests_total", {
  description: "Requests by method, route and status",
  incremental: true
})
const durations = Metric.histogram("velocity_http_request_duration_seconds", {
  description: "How long requests took, by method and route",
  boundaries
})
const inFlight = Metric.gauge("velocity_http_requests_in_flight", { description: "Requests being served" })

/** Requests to what is no route, all of them together. */
export const noRoute: Route = { group: "none", endpoint: "none", method: "other", template: "none" }

/** Counts requests into the registry of metrics that a context has. */
export class HttpMetrics {
  private readonly context: Context.Context<never>
  private readonly byStatus = new Map<Route, Map<number, Metric.Counter<number>>>()
  private readonly byRoute = new Map<Route, Metric.Histogram<number>>()
  private running = 0

  constructor(context: Context.Context<never>) {
    this.context = context
  }

  began(): void {
    this.running += 1
  }

  ended(route: Route, status: number, milliseconds: number): void {
    this.running -= 1
    const labels = { method: route.method, route: route.template }
    let statuses = this.byStatus.get(route)
    if (statuses === undefined) {
      statuses = new Map()
      this.byStatus.set(route, statuses)
    }
    let counter = statuses.get(status)
    if (counter === undefined) {
      counter = Metric.withAttributes(requests, { ...labels, status: String(status) })
      statuses.set(status, counter)
    }
    let duration = this.byRoute.get(route)
    if (duration === undefined) {
      duration = Metric.withAttributes(durations, labels)
      this.byRoute.set(route, duration)
    }
    counter.updateUnsafe(1, this.context)
    duration.updateUnsafe(milliseconds / 1000, this.context)
  }

  /** To be called before the metrics are read. */
  gauge(): void {
    inFlight.updateUnsafe(this.running, this.context)
  }
}

/** The server's own. */
export class RequestMetrics extends Context.Service<RequestMetrics, HttpMetrics>()("velocity/server/RequestMetrics") {}
