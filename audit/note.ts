/**
 * Signed notes (c2sp.org/signed-note) and checkpoints (c2sp.org/tlog-checkpoint), Ed25519 only.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto'
import { HASH_BYTES, sha256 } from './merkle.ts'

/** Room for witnesses with post-quantum signatures of about 5 kB each. */
export const NOTE_BYTES_MAX = 131_072
const SIGNATURES_MAX = 64
const ED25519 = 1
/** DER before the 32 bytes of an Ed25519 key (RFC 8410): PKCS #8 private, SPKI public. */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')

/** Why a note, a key or a proof was not accepted. */
export type NoteErrorCode =
  | 'NOTE_MALFORMED'
  | 'NOTE_KEY_MALFORMED'
  | 'NOTE_KEY_UNKNOWN'
  | 'NOTE_SIGNATURE'

export class NoteError extends Error {
  override readonly name = 'NoteError'
  readonly code: NoteErrorCode
  constructor(code: NoteErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

/** The public half of a log's key. */
export interface Verifier {
  /** Name of the key: the log's origin. */
  readonly name: string
  /** First 4 bytes of SHA-256(name || "\n" || type || key), in hex. */
  readonly id: string
  /** `<name>+<id>+<base64 of type and key>`. */
  readonly vkey: string
  readonly key: KeyObject
}

export interface Signer extends Verifier {
  readonly privateKey: KeyObject
}

const isName = (name: string): boolean =>
  name !== '' && name.length <= 255 && !/[\s+\p{Cc}\p{Surrogate}]/u.test(name)

function verifierOf(name: string, publicKey: Uint8Array): Verifier {
  if (!isName(name)) throw new NoteError('NOTE_KEY_MALFORMED', 'a key name has no space and no +')
  const blob = Buffer.concat([Buffer.from([ED25519]), publicKey])
  const id = sha256(name, '\n', blob).subarray(0, 4).toString('hex')
  const key = createPublicKey({
    key: Buffer.concat([SPKI_PREFIX, publicKey]),
    format: 'der',
    type: 'spki',
  })
  return { name, id, vkey: `${name}+${id}+${blob.toString('base64')}`, key }
}

/** Base64 with padding in its only spelling; null for anything else. */
export function decodeBase64(text: string): Buffer | null {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : null
}

/** @throws NoteError NOTE_KEY_MALFORMED */
export function parseVkey(vkey: string): Verifier {
  // The base64 may hold a + as well: split at the first two only.
  const [name = '', id = '', ...rest] = vkey.split('+')
  const blob = decodeBase64(rest.join('+'))
  if (blob?.length === 1 + HASH_BYTES && blob[0] === ED25519) {
    const verifier = verifierOf(name, blob.subarray(1))
    if (verifier.vkey === vkey && verifier.id === id) return verifier
  }
  throw new NoteError('NOTE_KEY_MALFORMED', 'not the vkey of an Ed25519 log key')
}

/**
 * A signer from the 32 bytes of its seed.
 * @throws NoteError NOTE_KEY_MALFORMED
 */
export function signerFromSeed(name: string, seed: Uint8Array): Signer {
  if (seed.length !== 32) throw new NoteError('NOTE_KEY_MALFORMED', 'a seed has 32 bytes')
  const privateKey = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, seed]),
    format: 'der',
    type: 'pkcs8',
  })
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
  return { ...verifierOf(name, spki.subarray(-HASH_BYTES)), privateKey }
}

/** 32 fresh bytes that signerFromSeed takes. */
export function generateSeed(): Buffer {
  const { privateKey } = generateKeyPairSync('ed25519')
  return privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
}

/** The state of a log at one size. */
export interface Checkpoint {
  readonly origin: string
  readonly size: number
  readonly root: Buffer
}

/** The text of a checkpoint, without signatures. No extension lines: nobody could verify them. */
export const checkpointText = (checkpoint: Checkpoint): string =>
  `${checkpoint.origin}\n${checkpoint.size}\n${checkpoint.root.toString('base64')}\n`

/** A note: the text, an empty line, one signature line. The text must end with a newline. */
export function signNote(text: string, signer: Signer): string {
  if (!text.endsWith('\n') || /[^\P{Cc}\n]/u.test(text)) {
    throw new NoteError(
      'NOTE_MALFORMED',
      'a note ends with a newline and has no control characters',
    )
  }
  const signature = sign(null, Buffer.from(text), signer.privateKey)
  const blob = Buffer.concat([Buffer.from(signer.id, 'hex'), signature])
  return `${text}\n\u2014 ${signer.name} ${blob.toString('base64')}\n`
}

interface SignatureLine {
  readonly name: string
  readonly id: string
  readonly signature: Buffer
}

function parseSignatureLine(line: string): SignatureLine {
  const [dash, name = '', encoded = '', ...rest] = line.split(' ')
  const blob = decodeBase64(encoded)
  if (dash !== '\u2014' || !isName(name) || rest.length > 0 || blob === null || blob.length < 5) {
    throw new NoteError('NOTE_MALFORMED', 'a signature line is malformed')
  }
  return { name, id: blob.subarray(0, 4).toString('hex'), signature: blob.subarray(4) }
}

function splitNote(note: string): { readonly text: string; readonly lines: readonly string[] } {
  if (Buffer.byteLength(note) > NOTE_BYTES_MAX || /[^\P{Cc}\n\u007f-\u009f]/u.test(note)) {
    throw new NoteError('NOTE_MALFORMED', 'a note is too long or has control characters')
  }
  const split = note.lastIndexOf('\n\n')
  const signatures = note.slice(split + 2)
  const lines = signatures.slice(0, -1).split('\n')
  if (split < 0 || !signatures.endsWith('\n') || lines.length > SIGNATURES_MAX) {
    throw new NoteError('NOTE_MALFORMED', 'a note ends with an empty line and signature lines')
  }
  return { text: note.slice(0, split + 1), lines }
}

/**
 * Opens a note: returns the text and the keys that signed it. Unknown keys are passed over; a known
 * key with a signature that fails refuses the whole note; none verified refuses it too.
 * @throws NoteError
 */
export function openNote(
  note: string,
  verifiers: readonly Verifier[],
): { readonly text: string; readonly signers: readonly Verifier[] } {
  const { text, lines } = splitNote(note)
  const signers = new Set<Verifier>()
  for (const line of lines.map(parseSignatureLine)) {
    const verifier = verifiers.find((known) => known.name === line.name && known.id === line.id)
    if (verifier === undefined) continue
    if (!verify(null, Buffer.from(text), verifier.key, line.signature)) {
      throw new NoteError('NOTE_SIGNATURE', `the signature of ${verifier.name} does not verify`)
    }
    signers.add(verifier)
  }
  if (signers.size === 0) throw new NoteError('NOTE_KEY_UNKNOWN', 'no signature by a known key')
  return { text, signers: [...signers] }
}

const decimal = /^(?:0|[1-9][0-9]{0,15})$/u

/** A decimal number in its only spelling, at most 2^53-1; null for anything else. */
export function parseDecimal(text: string): number | null {
  const number = Number(text)
  return decimal.test(text) && Number.isSafeInteger(number) ? number : null
}

/**
 * Opens a checkpoint signed by the key that is named as its origin.
 * @throws NoteError
 */
export function openCheckpoint(note: string, verifiers: readonly Verifier[]): Checkpoint {
  const { text, signers } = openNote(note, verifiers)
  const [origin = '', sizeText = '', rootText = '', ...rest] = text.slice(0, -1).split('\n')
  const size = parseDecimal(sizeText)
  const root = decodeBase64(rootText)
  if (size === null || root?.length !== HASH_BYTES || rest.includes('')) {
    throw new NoteError('NOTE_MALFORMED', 'the note is no checkpoint')
  }
  if (!signers.some((signer) => signer.name === origin)) {
    throw new NoteError('NOTE_KEY_UNKNOWN', `no signature by the key of origin ${origin}`)
  }
  return { origin, size, root }
}
