/** ECDSA on P-256 with SHA-256, as `cosign sign --key` makes it; and base64 that has one reading. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'

import type { TrustedKey } from './found.ts'

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/u

/** Standard base64 with padding, and nothing that a lenient reader would skip; null otherwise. */
export function decodeBase64(text: string): Buffer | null {
  if (!base64.test(text)) return null
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : null
}

const keys = new WeakMap<TrustedKey, KeyObject>()

function keyOf(key: TrustedKey): KeyObject {
  const known = keys.get(key)
  if (known !== undefined) return known
  const made = createPublicKey(key.pem)
  if (made.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new TypeError(`the key ${key.keyId} is not an ECDSA key on P-256`)
  }
  keys.set(key, made)
  return made
}

/** Whether `signature` (DER) is the key's over `bytes`. */
export const verifies = (key: TrustedKey, bytes: Uint8Array, signature: Uint8Array): boolean =>
  verify('sha256', bytes, keyOf(key), signature)
