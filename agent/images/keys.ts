/** Keys that sign images: made as `cosign generate-key-pair` makes them, ECDSA on P-256. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto'

import { ImageError } from './errors.ts'

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

/**
 * Reads a private key in PKCS#8 or SEC 1 PEM; PKCS#8 may be encrypted with `password`.
 * @throws ImageError SIGNING_KEY_INVALID
 */
export function readSigningKey(pem: string, password: string | null): SigningKey {
  let privateKey: KeyObject
  try {
    privateKey = createPrivateKey({
      key: pem,
      ...(password === null ? {} : { passphrase: password }),
    })
  } catch (cause) {
    throw new ImageError(
      'SIGNING_KEY_INVALID',
      'The signing key cannot be read: it must be a private key in PEM, with its password if it has one.',
      { cause },
    )
  }
  if (privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new ImageError('SIGNING_KEY_INVALID', 'The signing key must be an ECDSA key on P-256.')
  }
  return { privateKey, keyId: keyIdOf(createPublicKey(privateKey)) }
}
