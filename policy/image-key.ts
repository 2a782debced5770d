/** A public key that may sign images. */
import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import type { Canonical } from './canonical.ts'
import { type Digest, parseDigest } from './nouns/digest.ts'
import { BadDocument, membersOf, stringOf, type Where, within } from './strict-members.ts'

export interface ImageKey {
  /** The name that the rule gives the key, for people. */
  readonly id: string
  /** `sha256:` of the SPKI DER; also what a sigstore bundle's key hint says, in base64. */
  readonly keyId: Digest
  /** The key as one SPKI PEM block. */
  readonly pem: string
}

const keyName = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/u
/**
 * One SPKI block and nothing beside it. node:crypto would also take a private key, or the first of
 * several blocks, and a rule must not hold either.
 */
const onePublicKey =
  /^-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\r\n]{1,1024}-----END PUBLIC KEY-----\r?\n?$/u

/** @throws BadDocument */
export function parseImageKey(value: Canonical | undefined, where: Where): ImageKey {
  const key = membersOf(value, where, ['id', 'pem'])
  const id = stringOf(key['id'], within(where, 'id'), keyName)
  const pem = key['pem']
  if (typeof pem !== 'string' || !onePublicKey.test(pem)) {
    throw new BadDocument(within(where, 'pem'), 'must be one PEM block BEGIN PUBLIC KEY')
  }
  const publicKey = readPublicKey(pem, within(where, 'pem'))
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const hash = createHash('sha256').update(spki).digest('hex')
  const normal = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  return { id, keyId: parseDigest(`sha256:${hash}`), pem: normal }
}

function readPublicKey(pem: string, where: Where): KeyObject {
  let key: KeyObject
  try {
    key = createPublicKey({ key: pem, format: 'pem', type: 'spki' })
  } catch {
    throw new BadDocument(where, 'must hold a public key that can be read')
  }
  // What `cosign generate-key-pair` makes. Each further kind needs its own verification and tests.
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new BadDocument(where, 'must be an ECDSA key on P-256, as cosign makes them')
  }
  return key
}
