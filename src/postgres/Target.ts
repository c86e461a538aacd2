/**
 * Where a connection URL leads, as libpq reads it: who logs in, where, and whether it is encrypted.
 *
 * `require`, `verify-ca` and `verify-full` mean the same here, encrypted and verified against the host's name; `prefer`
 * and `allow` go on without encryption where the server has none; without `sslmode` nothing is encrypted.
 */

/** See the module. */
export interface Target {
  /** The host and port, or the Unix socket. */
  readonly address: { readonly host: string; readonly port: number } | { readonly path: string }
  /** The name that a certificate must be for. */
  readonly host: string
  readonly encryption: "none" | "optional" | "required"
  readonly user: string
  readonly password: string | undefined
  readonly database: string | undefined
  /** The startup parameter of that name: settings as a command line's. */
  readonly options: string | undefined
}

/** Throws an `Error` that says what is wrong, without the URL's text, which holds a password. */
export const targetOf = (text: string): Target => {
  const url = URL.parse(text)
  if (url === null) throw new Error("the connection URL cannot be read")
  if (url.protocol !== "postgres:" && url.protocol !== "postgresql:") {
    throw new Error(`a connection URL begins with postgres:// and not with ${url.protocol}//`)
  }
  const said = (name: string): string | undefined => url.searchParams.get(name) ?? undefined
  const host = (said("host") ?? decodeURIComponent(url.hostname.replace(/^\[|\]$/g, ""))) || "localhost"
  const port = Number(said("port") ?? (url.port || 5432))
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error("the connection URL's port is none")
  const user = (said("user") ?? decodeURIComponent(url.username)) || process.env.USER || process.env.USERNAME
  if (!user) throw new Error("the connection URL names no user")
  const password = said("password") ?? decodeURIComponent(url.password)
  return {
    address: host.startsWith("/") ? { path: `${host}/.s.PGSQL.${port}` } : { host, port },
    host,
    encryption: encryptionOf(said("sslmode")),
    user,
    password: password === "" ? undefined : password,
    database: (said("dbname") ?? decodeURIComponent(url.pathname.slice(1))) || undefined,
    options: said("options")
  }
}

const encryptionOf = (mode: string | undefined): Target["encryption"] => {
  switch (mode) {
    case undefined:
    case "disable":
      return "none"
    case "prefer":
    case "allow":
      return "optional"
    case "require":
    case "verify-ca":
    case "verify-full":
      return "required"
    default:
      throw new Error(`sslmode=${mode} is not known`)
  }
}
