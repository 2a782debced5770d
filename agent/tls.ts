/**
 * The certificate of the HTTPS listener on loopback: a key pair made once, and a self-signed
 * certificate for it. Node reads X.509 and does not write it, so the few DER structures are here
 * (RFC 5280 section 4.1; ITU-T X.690 for the encoding).
 *
 * It is an end-entity certificate and no CA: a client pins it, and it vouches for nothing else.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
} from 'node:crypto'

const DAY_MS = 86_400_000
/** CA/Browser Forum baseline requirements cap what clients accept at 398 days. */
const VALID_DAYS = 397

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  const length = body.length
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), body])
  const bytes = length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...bytes]), body])
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts)
const text = (tag: number, value: string): Buffer => der(tag, Buffer.from(value, 'latin1'))
/** DER bytes of an object identifier, given ready: there are five of them. */
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'))

const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
const commonName = '550403'
const basicConstraints = '551d13'
const keyUsage = '551d0f'
const extendedKeyUsage = '551d25'
const subjectAltName = '551d11'
const serverAuth = oid('2b06010505070301')
const CRITICAL = der(0x01, Buffer.from([0xff]))

/** UTCTime: two digits of the year, good until 2049. */
const time = (date: Date): Buffer =>
  text(
    0x17,
    date
      .toISOString()
      .replace(/\.\d+Z$/u, 'Z')
      .replaceAll(/[-:T]/gu, '')
      .slice(2),
  )

const extension = (id: string, critical: boolean, value: Buffer): Buffer =>
  sequence(oid(id), ...(critical ? [CRITICAL] : []), der(0x04, value))

/** localhost and the loopback addresses: the listener has no others. */
const names = sequence(
  text(0x82, 'localhost'),
  der(0x87, Buffer.from([127, 0, 0, 1])),
  der(0x87, Buffer.from([...Array.from({ length: 15 }, () => 0), 1])),
)

const extensions = sequence(
  extension(basicConstraints, true, sequence()),
  extension(keyUsage, true, der(0x03, Buffer.from([7, 0x80]))), // digitalSignature
  extension(extendedKeyUsage, false, sequence(serverAuth)),
  extension(subjectAltName, false, names),
)

/** PEM of a private key and of the certificate for it. */
export interface TlsPair {
  readonly key: string
  readonly certificate: string
}

const pem = (label: string, bytes: Buffer): string => {
  const lines = bytes.toString('base64').match(/.{1,64}/gu) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** A fresh P-256 key and its certificate, valid from a day ago for 397 days. */
export function makeTlsPair(now: Date): TlsPair {
  const pair = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const key = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const spki = createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' })
  const serial = randomBytes(16)
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40, 0) // positive, and never empty in front
  const name = sequence(der(0x31, sequence(oid(commonName), text(0x0c, 'casemate'))))
  const from = new Date(now.getTime() - DAY_MS)
  const until = new Date(now.getTime() + (VALID_DAYS - 1) * DAY_MS)
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))), // version 3
    der(0x02, serial),
    ecdsaWithSha256,
    name,
    sequence(time(from), time(until)),
    name,
    spki,
    der(0xa3, extensions),
  )
  const signature = sign('sha256', body, key)
  const certificate = sequence(body, ecdsaWithSha256, der(0x03, Buffer.from([0]), signature))
  return { key, certificate: pem('CERTIFICATE', certificate) }
}
