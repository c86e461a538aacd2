/**
 * Ports on the loopback address: a free one, whether one is taken, and by whom.
 *
 * Used where a port is chosen or refused (`EmbeddedServer`, `velocity dev --port`). The answer is a hint: another
 * process may take the port in between, so whoever binds must still cope with that.
 */
import * as Fs from "node:fs/promises"
import * as Net from "node:net"

const tryPort = (port: number): Promise<number | undefined> =>
  new Promise((resolve) => {
    const server = Net.createServer()
    server.once("error", () => resolve(undefined))
    server.listen({ host: "127.0.0.1", port, exclusive: true }, () => {
      const address = server.address()
      const got = typeof address === "object" && address !== null ? address.port : port
      server.close(() => resolve(got))
    })
  })

/** Whether 127.0.0.1:`port` can be bound now. */
export const isFree = async (port: number): Promise<boolean> => (await tryPort(port)) !== undefined

/** A free port that the system chooses. */
export const freePort = async (): Promise<number> => {
  const port = await tryPort(0)
  if (port === undefined) throw new Error("no port of 127.0.0.1 can be bound")
  return port
}

/** The first free port above `port`, looking at the next 100. */
export const nextFree = async (port: number): Promise<number | undefined> => {
  for (let next = port + 1; next <= Math.min(port + 100, 65535); next++) {
    if (await isFree(next)) return next
  }
  return undefined
}

/**
 * Who listens on a TCP port of this machine, as `command line (process id)`. Read from /proc, so on Linux only, and only for
 * processes that we may look into; otherwise undefined.
 */
export const holderOf = async (port: number): Promise<string | undefined> => {
  const inodes = new Set<string>()
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const text = await Fs.readFile(table, "utf8").catch(() => "")
    for (const line of text.split("\n").slice(1)) {
      const columns = line.trim().split(/\s+/)
      const local = columns[1]
      const inode = columns[9]
      // state 0A is LISTEN; the address is hex `address:port`
      if (columns[3] !== "0A" || local === undefined || inode === undefined) continue
      if (Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16) === port) inodes.add(`socket:[${inode}]`)
    }
  }
  if (inodes.size === 0) return undefined
  for (const entry of await Fs.readdir("/proc").catch(() => [] as Array<string>)) {
    if (!/^[0-9]+$/.test(entry)) continue
    const descriptors = await Fs.readdir(`/proc/${entry}/fd`).catch(() => [] as Array<string>)
    for (const descriptor of descriptors) {
      const link = await Fs.readlink(`/proc/${entry}/fd/${descriptor}`).catch(() => "")
      if (!inodes.has(link)) continue
      const words = (await Fs.readFile(`/proc/${entry}/cmdline`, "utf8").catch(() => "")).split("\0")
      const name = words.join(" ").trim().slice(0, 60) || "a program"
      return `${name} (process ${entry})`
    }
  }
  return undefined
}

/** One sentence that says a port is taken, by whom if that can be seen, and which one is free. */
export const busyMessage = async (port: number): Promise<string> => {
  const [holder, next] = await Promise.all([holderOf(port), nextFree(port)])
  return `port ${port} is taken${holder === undefined ? "" : ` by ${holder}`}${
    next === undefined ? "" : `; ${next} is free`
  }`
}
