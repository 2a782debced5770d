/** Files of the state directory that nobody but this user can read: keys, made at the first start. */
import { randomUUID } from 'node:crypto'
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

/** What an error about the file is made by. */
export type Unsafe = (file: string, what: string, options?: ErrorOptions) => Error

export interface PrivateParts {
  /** Its bytes, when there is none yet. */
  readonly make: () => Uint8Array
  readonly unsafe: Unsafe
}

const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code

/** null: there is none. */
function read(file: string, unsafe: Unsafe): Buffer | null {
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
    return readFileSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/** Complete and on disk under another name first; link() then fails for all but the first maker. */
function write(stateDir: string, file: string, { make, unsafe }: PrivateParts): Uint8Array {
  const bytes = make()
  const draft = `${file}.${randomUUID()}.new`
  const descriptor = openSync(draft, 'wx', 0o600)
  try {
    writeSync(descriptor, bytes)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  try {
    linkSync(draft, file)
  } catch (error) {
    const other = hasCode(error, 'EEXIST') ? read(file, unsafe) : null
    if (other === null) throw error
    return other
  } finally {
    unlinkSync(draft)
  }
  const folder = openSync(stateDir, 'r')
  fsyncSync(folder)
  closeSync(folder)
  return bytes
}

/** Bytes of the file `name`, which is made when there is none. @throws what `unsafe` makes */
export function privateFile(
  stateDir: string,
  name: string,
  parts: PrivateParts,
): { readonly file: string; readonly bytes: Uint8Array } {
  const file = path.join(stateDir, name)
  return { file, bytes: read(file, parts.unsafe) ?? write(stateDir, file, parts) }
}
