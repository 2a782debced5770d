/**
 * Frames between log and signer: u32 length (little endian), then canonical JSON. One answer for
 * each request, in order. Leaf hashes, not records: the signer learns nothing of tenants.
 */
import {
  type Canonical,
  canonicalBytes,
  isCanonicalObject,
  parseCanonical,
} from '../../policy/canonical.ts'
import { HASH_BYTES } from '../merkle.ts'
import { decodeBase64 } from '../note.ts'

export const FRAME_BYTES_MAX = 524_288
/** Most leaf hashes in one request. */
export const LEAVES_MAX = 4096

export type SignerRequest =
  | { readonly op: 'state' }
  /** Sign the tree of old_size leaves followed by these. */
  | { readonly op: 'sign'; readonly old_size: number; readonly leaves: readonly Buffer[] }

export type SignerAnswer =
  | {
      readonly ok: true
      readonly vkey: string
      readonly size: number
      readonly root: Buffer
      /** The signed checkpoint; null for `state`. */
      readonly note: string | null
    }
  | { readonly ok: false; readonly code: string; readonly message: string }

/** A frame that is not one: the connection ends. */
export class BadFrame extends Error {
  override readonly name = 'BadFrame'
  readonly code = 'SIGNER_BAD_FRAME'
}

export function encodeFrame(value: Canonical): Buffer {
  const bytes = canonicalBytes(value)
  if (bytes.length > FRAME_BYTES_MAX) throw new BadFrame('a frame is too long')
  const frame = Buffer.alloc(4 + bytes.length)
  frame.writeUInt32LE(bytes.length)
  frame.set(bytes, 4)
  return frame
}

/** Cuts a byte stream into frames; holds at most one frame and one chunk. */
export class FrameReader {
  #held: Buffer = Buffer.alloc(0)

  /** @throws BadFrame */
  push(chunk: Buffer): readonly Canonical[] {
    const values: Canonical[] = []
    let held = Buffer.concat([this.#held, chunk])
    while (held.length >= 4) {
      const length = held.readUInt32LE(0)
      if (length > FRAME_BYTES_MAX) throw new BadFrame('a frame is too long')
      if (held.length < 4 + length) break
      values.push(readCanonical(held.subarray(4, 4 + length)))
      held = held.subarray(4 + length)
    }
    this.#held = held
    return values
  }
}

function readCanonical(bytes: Buffer): Canonical {
  try {
    return parseCanonical(bytes, FRAME_BYTES_MAX)
  } catch (cause) {
    throw Object.assign(new BadFrame('a frame is not canonical JSON'), { cause })
  }
}

type Members = { readonly [name: string]: Canonical | undefined }

/** The object's members when it has exactly these names. */
function membersOf(value: Canonical, names: readonly string[]): Members {
  const isExact =
    isCanonicalObject(value) &&
    Object.keys(value).toSorted().join(' ') === names.toSorted().join(' ')
  if (isExact) return value
  throw new BadFrame(`a frame does not have the members ${names.join(', ')}`)
}

const sizeOf = (value: Canonical | undefined): number => {
  if (typeof value === 'number' && value >= 0) return value
  throw new BadFrame('a size is not a count')
}

const hashOf = (value: Canonical | undefined): Buffer => {
  const hash = typeof value === 'string' ? decodeBase64(value) : null
  if (hash?.length === HASH_BYTES) return hash
  throw new BadFrame('a hash is not 32 bytes in base64')
}

const textOf = (value: Canonical | undefined): string => {
  if (typeof value === 'string') return value
  throw new BadFrame('a member is not a string')
}

export function writeRequest(request: SignerRequest): Buffer {
  if (request.op === 'state') return encodeFrame({ op: 'state' })
  const leaves = request.leaves.map((leaf) => leaf.toString('base64'))
  return encodeFrame({ op: 'sign', old_size: request.old_size, leaves })
}

/** @throws BadFrame */
export function readRequest(value: Canonical): SignerRequest {
  if (!isCanonicalObject(value) || value['op'] !== 'sign') {
    if (membersOf(value, ['op'])['op'] === 'state') return { op: 'state' }
    throw new BadFrame('the operation is not known')
  }
  const { leaves, ...rest } = membersOf(value, ['leaves', 'old_size', 'op'])
  if (!Array.isArray(leaves) || leaves.length > LEAVES_MAX) {
    throw new BadFrame(`leaves are a list of at most ${LEAVES_MAX}`)
  }
  return { op: 'sign', old_size: sizeOf(rest['old_size']), leaves: leaves.map(hashOf) }
}

export function writeAnswer(answer: SignerAnswer): Buffer {
  if (!answer.ok) return encodeFrame(answer)
  return encodeFrame({ ...answer, root: answer.root.toString('base64') })
}

/** @throws BadFrame */
export function readAnswer(value: Canonical): SignerAnswer {
  if (isCanonicalObject(value) && value['ok'] === false) {
    const { code, message } = membersOf(value, ['code', 'message', 'ok'])
    return { ok: false, code: textOf(code), message: textOf(message) }
  }
  const { ok, note, root, size, vkey } = membersOf(value, ['note', 'ok', 'root', 'size', 'vkey'])
  if (ok !== true) throw new BadFrame('an answer is neither ok nor refused')
  return {
    ok: true,
    vkey: textOf(vkey),
    size: sizeOf(size),
    root: hashOf(root),
    note: note === null ? null : textOf(note),
  }
}
