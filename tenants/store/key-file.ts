/**
 * The Ed25519 key that signs access tokens, in a file of the state directory that nobody else can
 * read. Made at the first start; whoever loses it makes all tokens void, no more.
 */

import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
} from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { TenantsError } from '../errors.ts'

export const TOKEN_KEY_FILE = 'token-key.pem'

/**
 * Reads the key, or makes it when there is none.
 * @throws TenantsError TOKEN_KEY_UNSAFE
 */
export function loadTokenKey(stateDir: string): KeyObject {
  const file = path.join(stateDir, TOKEN_KEY_FILE)
  return readKey(file) ?? makeKey(stateDir, file)
}

const unsafe = (file: string, what: string, options: ErrorOptions = {}): TenantsError =>
  new TenantsError(
    'TOKEN_KEY_UNSAFE',
    `The token key ${file} ${what}. Remove it; a new one is made at the next start, and tokens have to be issued anew.`,
    { file },
    options,
  )

const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code

function readKey(file: string): KeyObject | null {
  let descriptor: number
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (cause) {
    if (hasCode(cause, 'ENOENT')) return null
    throw unsafe(file, 'cannot be opened, or is a link', { cause })
  }
  try {
    const { mode, uid } = fstatSync(descriptor)
    if ((mode & 0o077) !== 0 || uid !== process.getuid?.()) {
      throw unsafe(file, 'is not private to this user (mode 0600)')
    }
    return parseKey(file, readFileSync(descriptor, 'utf8'))
  } finally {
    closeSync(descriptor)
  }
}

function parseKey(file: string, pem: string): KeyObject {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch (cause) {
    throw unsafe(file, 'is not a private key', { cause })
  }
  if (key.asymmetricKeyType === 'ed25519') return key
  throw unsafe(file, 'is not an Ed25519 key')
}

/** Complete and on disk under another name first; link() then fails for all but the first maker. */
function makeKey(stateDir: string, file: string): KeyObject {
  const { privateKey } = generateKeyPairSync('ed25519')
  const draft = `${file}.${randomUUID()}.new`
  const descriptor = openSync(draft, 'wx', 0o600)
  try {
    writeSync(descriptor, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  try {
    linkSync(draft, file)
  } catch (error) {
    const other = hasCode(error, 'EEXIST') ? readKey(file) : null
    if (other === null) throw error
    return other
  } finally {
    unlinkSync(draft)
  }
  const folder = openSync(stateDir, 'r')
  fsyncSync(folder)
  closeSync(folder)
  return privateKey
}

/** The public half, for verification. */
export const publicHalf = (key: KeyObject): KeyObject => createPublicKey(key)
