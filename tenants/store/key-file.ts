/** The Ed25519 key that signs access tokens. Whoever loses it makes all tokens void, no more. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { TenantsError } from '../errors.ts'
import { privateFile } from './private-file.ts'

export const TOKEN_KEY_FILE = 'token-key.pem'

const unsafe = (file: string, what: string, options: ErrorOptions = {}): TenantsError =>
  new TenantsError(
    'TOKEN_KEY_UNSAFE',
    `The token key ${file} ${what}. Remove it; a new one is made at the next start, and tokens have to be issued anew.`,
    { file },
    options,
  )

const make = (): Buffer => {
  const { privateKey } = generateKeyPairSync('ed25519')
  return Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' }))
}

/**
 * Reads the key, or makes it when there is none.
 * @throws TenantsError TOKEN_KEY_UNSAFE
 */
export function loadTokenKey(stateDir: string): KeyObject {
  const { file, bytes } = privateFile(stateDir, TOKEN_KEY_FILE, { make, unsafe })
  let key: KeyObject
  try {
    key = createPrivateKey(Buffer.from(bytes))
  } catch (cause) {
    throw unsafe(file, 'is not a private key', { cause })
  }
  if (key.asymmetricKeyType === 'ed25519') return key
  throw unsafe(file, 'is not an Ed25519 key')
}

/** The public half, for verification. */
export const publicHalf = (key: KeyObject): KeyObject => createPublicKey(key)
