/** A certificate that vouches for itself, for a server of one test: X.509 (RFC 5280) in DER, signed with ECDSA. */
import { generateKeyPairSync, sign } from "node:crypto"

/** An element: its tag, its length, its content. */
const der = (tag: number, ...parts: ReadonlyArray<Uint8Array | string>): Buffer => {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)))
  const size = content.length.toString(16)
  const bytes = Buffer.from(size.length % 2 === 0 ? size : `0${size}`, "hex")
  const length = content.length < 0x80 ? bytes : Buffer.concat([Buffer.from([0x80 + bytes.length]), bytes])
  return Buffer.concat([Buffer.from([tag]), length, content])
}
const sequence = (...parts: ReadonlyArray<Uint8Array>): Buffer => der(0x30, ...parts)
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, "hex"))

const ecdsaWithSha256 = sequence(oid("2a8648ce3d040302"))
const commonName = "550403"
const alternativeName = "551d11"
const basicConstraints = "551d13"

const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes)
    .toString("base64")
    .replace(/(.{64})/g, "$1\n")}\n-----END ${label}-----\n`

const dateOf = (date: Date): Buffer => der(0x18, `${date.toISOString().replace(/\D/g, "").slice(0, 14)}Z`)

/** For a host of one name, from yesterday until tomorrow; both as PEM. */
export const certificateFor = (host: string): { readonly certificate: string; readonly key: string } => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const day = 86_400_000
  const name = sequence(der(0x31, sequence(oid(commonName), der(0x0c, host))))
  const extension = (id: string, value: Uint8Array) => sequence(oid(id), der(0x04, value))
  const signed = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([1])),
    ecdsaWithSha256,
    name,
    sequence(dateOf(new Date(Date.now() - day)), dateOf(new Date(Date.now() + day))),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(
      0xa3,
      sequence(
        extension(alternativeName, sequence(der(0x82, host))),
        extension(basicConstraints, sequence(der(0x01, Buffer.from([0xff]))))
      )
    )
  )
  const signature = der(0x03, Buffer.from([0]), sign("sha256", signed, privateKey))
  return {
    certificate: pem("CERTIFICATE", sequence(signed, ecdsaWithSha256, signature)),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString()
  }
}
