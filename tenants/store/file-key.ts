/**
 * The key that stored files are encrypted with at rest: AES-256-GCM (NIST SP 800-38D), 32 random bytes in a file of the
 * state directory that nobody else can read. It keeps a copied database, or a backup of it, from being the secrets; it
 * does not keep them from who has the agent's rights.
 *
 * Its id, the beginning of a hash of it, is written beside each file. There is one key; a file of another one is refused
 * by name, so that a key which was replaced is noticed and not taken for damage.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { TenantsError } from '../errors.ts'
import type { SealedFile, StoredFile } from '../stored-file.ts'
import { privateFile } from './private-file.ts'

export const FILE_KEY_FILE = 'file-key'
const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
const ID_DIGITS = 16

export interface FileKey {
  readonly id: string
  readonly bytes: Uint8Array
}

const unsafe = (file: string, what: string, options: ErrorOptions = {}): TenantsError =>
  new TenantsError(
    'FILE_KEY_UNSAFE',
    `The key of stored files ${file} ${what}. Put back the file as it was; without it the configs and secrets that are stored are lost, and have to be stored anew.`,
    { file },
    options,
  )

/**
 * Reads the key, or makes it when there is none.
 * @param isUsed files are kept that it opens: then another one is of no use
 * @throws TenantsError FILE_KEY_UNSAFE
 */
export function loadFileKey(stateDir: string, isUsed: boolean): FileKey {
  const make = (): Buffer => {
    if (isUsed)
      throw unsafe(FILE_KEY_FILE, 'is missing, and configs or secrets are encrypted with it')
    return randomBytes(KEY_BYTES)
  }
  const { file, bytes } = privateFile(stateDir, FILE_KEY_FILE, { make, unsafe })
  if (bytes.length !== KEY_BYTES) throw unsafe(file, 'is not 32 bytes')
  const id = createHash('sha256').update('casemate-file-key\0').update(bytes).digest('hex')
  return { id: id.slice(0, ID_DIGITS), bytes }
}

/** What a file is bound to: moved to another name, kind or tenant it does not open. */
const boundTo = ({ tenant, kind, name, version }: StoredFile): Buffer =>
  Buffer.from(`casemate.file/1\0${tenant}\0${kind}\0${name}\0${version}`)

/** A fresh nonce for each: with 96 random bits, and far fewer than 2^32 files, none comes twice. */
export function seal(key: FileKey, file: StoredFile, content: Uint8Array): SealedFile {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key.bytes, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(boundTo(file))
  const sealed = Buffer.concat([cipher.update(content), cipher.final(), cipher.getAuthTag()])
  return { ...file, nonce, sealed }
}

/** @throws TenantsError FILE_KEY_UNSAFE, STORE_CORRUPT */
export function unseal(key: FileKey, file: SealedFile): Uint8Array {
  if (file.keyId !== key.id) {
    throw unsafe(
      FILE_KEY_FILE,
      `has the id ${key.id}, and a ${file.kind} was stored with ${file.keyId}`,
    )
  }
  const end = file.sealed.length - TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key.bytes, file.nonce, {
    authTagLength: TAG_BYTES,
  })
  decipher.setAAD(boundTo(file))
  try {
    decipher.setAuthTag(file.sealed.subarray(end))
    return Buffer.concat([decipher.update(file.sealed.subarray(0, end)), decipher.final()])
  } catch (cause) {
    const sentence = `A stored ${file.kind} was changed where it is kept, and is not used.`
    throw new TenantsError('STORE_CORRUPT', sentence, {}, { cause })
  }
}
