/** Keys that sign images: made as `cosign generate-key-pair` makes them, ECDSA on P-256. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  scryptSync,
} from 'node:crypto'

import type { Canonical } from '../../policy/canonical.ts'
import { objectOf, parseDocument, sizeOf, stringOf } from './document.ts'
import { ImageError } from './errors.ts'
import { openSecretBox } from './secretbox.ts'

export interface SigningKeyPair {
  /** PKCS#8, not encrypted: for a file that only its owner reads. */
  readonly privatePem: string
  /** SPKI: what image rules name. */
  readonly publicPem: string
  /** `sha256:` of the SPKI DER. */
  readonly keyId: string
}

export interface SigningKey {
  readonly privateKey: KeyObject
  readonly keyId: string
}

const spkiOf = (publicKey: KeyObject): Buffer => publicKey.export({ type: 'spki', format: 'der' })

const keyIdOf = (publicKey: KeyObject): string =>
  `sha256:${createHash('sha256').update(spkiOf(publicKey)).digest('hex')}`

export function generateSigningKey(): SigningKeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  return {
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    keyId: keyIdOf(publicKey),
  }
}

const refuse = (why: string, cause?: unknown): ImageError =>
  new ImageError('SIGNING_KEY_INVALID', `The signing key cannot be read: ${why}.`, { cause })

const cosignPem =
  /^-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s([A-Za-z0-9+/=\s]{1,8192})-----END ENCRYPTED \1 PRIVATE KEY-----\s*$/u
/** cosign uses 65,536 (64 MiB); a key file must not make scrypt take all memory there is. */
const SCRYPT_COST_MAX = 1 << 18
const SCRYPT_BYTES_MAX = 512 << 20

const bytesOf = (value: Canonical | undefined): Buffer =>
  Buffer.from(stringOf(value, 'base64'), 'base64')

/** The members of cosign's key file: JSON in PEM, a secretbox under scrypt of the password. */
function parseCosignKey(body: string): { derive: (password: string) => Buffer; open: Opener } {
  const text = Buffer.from(body, 'base64')
  const members = parseDocument(text, 8192, 'the key', ['kdf', 'cipher', 'ciphertext'])
  const kdf = objectOf(members['kdf'], 'kdf', ['name', 'params', 'salt'])
  const cipher = objectOf(members['cipher'], 'cipher', ['name', 'nonce'])
  const params = objectOf(kdf['params'], 'params', ['N', 'r', 'p'])
  if (kdf['name'] !== 'scrypt' || cipher['name'] !== 'nacl/secretbox') {
    throw refuse('it is locked in an unknown way')
  }
  const [N, r, p] = ['N', 'r', 'p'].map((name) => sizeOf(params[name], name))
  if (N === undefined || r !== 8 || p !== 1 || N > SCRYPT_COST_MAX) {
    throw refuse('its scrypt parameters are not those of cosign')
  }
  const salt = bytesOf(kdf['salt'])
  return {
    derive: (password) => scryptSync(password, salt, 32, { N, r, p, maxmem: SCRYPT_BYTES_MAX }),
    open: (key) => openSecretBox(bytesOf(members['ciphertext']), key, bytesOf(cipher['nonce'])),
  }
}

type Opener = (key: Buffer) => Buffer | null

function readCosignKey(body: string, password: string | null): KeyObject {
  const { derive, open } = parseCosignKey(body)
  const der = open(derive(password ?? ''))
  if (der === null) throw refuse('the password is not the one it was locked with')
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
}

function readPrivateKey(pem: string, password: string | null): KeyObject {
  try {
    const cosign = cosignPem.exec(pem)
    if (cosign !== null) return readCosignKey(cosign[2] ?? '', password)
    return createPrivateKey({ key: pem, ...(password === null ? {} : { passphrase: password }) })
  } catch (cause) {
    if (cause instanceof ImageError && cause.code === 'SIGNING_KEY_INVALID') throw cause
    throw refuse('it must be a private key in PEM, with its password if it has one', cause)
  }
}

/**
 * Reads a private key: PKCS#8 or SEC 1 in PEM, PKCS#8 with a password, or a key file of cosign with
 * its password. Takes some tenths of a second for the latter; meant for the command line.
 * @throws ImageError SIGNING_KEY_INVALID
 */
export function readSigningKey(pem: string, password: string | null): SigningKey {
  const privateKey = readPrivateKey(pem, password)
  if (privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new ImageError('SIGNING_KEY_INVALID', 'The signing key must be an ECDSA key on P-256.')
  }
  return { privateKey, keyId: keyIdOf(createPublicKey(privateKey)) }
}
