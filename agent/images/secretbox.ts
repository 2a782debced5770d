/**
 * Opens NaCl's secretbox (XSalsa20 and Poly1305), which node:crypto does not have and cosign's key
 * files are locked with. For data of a few hundred bytes: Poly1305 is plain BigInt arithmetic. It
 * runs on a person's own key and password, so its timing tells nobody anything.
 *
 * Sources: "Cryptography in NaCl" (D. J. Bernstein, 2009), "Extending the Salsa20 nonce" (2011).
 */
import { timingSafeEqual } from 'node:crypto'

const ROUNDS = 20
/** "expand 32-byte k", as words. */
const SIGMA = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const

/** The four quarter rounds of a column round and of a row round: indexes into the state. */
const QUARTERS = [
  [0, 4, 8, 12],
  [5, 9, 13, 1],
  [10, 14, 2, 6],
  [15, 3, 7, 11],
  [0, 1, 2, 3],
  [5, 6, 7, 4],
  [10, 11, 8, 9],
  [15, 12, 13, 14],
] as const

const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by))

function quarter(state: Uint32Array, [a, b, c, d]: (typeof QUARTERS)[number]): void {
  const at = (index: number): number => state[index] ?? 0
  state[b] = at(b) ^ rotate((at(a) + at(d)) | 0, 7)
  state[c] = at(c) ^ rotate((at(b) + at(a)) | 0, 9)
  state[d] = at(d) ^ rotate((at(c) + at(b)) | 0, 13)
  state[a] = at(a) ^ rotate((at(d) + at(c)) | 0, 18)
}

const readWords = (from: Buffer, start: number): readonly number[] =>
  [0, 4, 8, 12].map((offset) => from.readUInt32LE(start + offset))

/** The state that key (32 bytes) and input (16 bytes) make. */
function stateOf(key: Buffer, input: Buffer): Uint32Array {
  const [s0, s1, s2, s3] = SIGMA
  return Uint32Array.of(
    s0,
    ...readWords(key, 0),
    s1,
    ...readWords(input, 0),
    s2,
    ...readWords(key, 16),
    s3,
  )
}

function rounds(state: Uint32Array): Uint32Array {
  const mixed = Uint32Array.from(state)
  for (let round = 0; round < ROUNDS; round += 2) for (const one of QUARTERS) quarter(mixed, one)
  return mixed
}

const bytesOf = (words: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(words.length * 4)
  for (const [index, word] of words.entries()) bytes.writeUInt32LE(word >>> 0, index * 4)
  return bytes
}

/** HSalsa20: the key for a nonce's first 16 bytes. */
function subKey(key: Buffer, input: Buffer): Buffer {
  const mixed = rounds(stateOf(key, input))
  return bytesOf([0, 5, 10, 15, 6, 7, 8, 9].map((index) => mixed[index] ?? 0))
}

/** One block of Salsa20's key stream. */
function block(key: Buffer, nonce: Buffer, counter: number): Buffer {
  const input = Buffer.alloc(16)
  nonce.copy(input, 0, 0, 8)
  input.writeUInt32LE(counter, 8)
  const state = stateOf(key, input)
  const mixed = rounds(state)
  return bytesOf([...state].map((word, index) => (word + (mixed[index] ?? 0)) | 0))
}

const reversed = (bytes: Buffer): Buffer => Buffer.from(bytes.toReversed())

const littleEndian = (bytes: Buffer): bigint => BigInt(`0x0${reversed(bytes).toString('hex')}`)

/** Poly1305 (RFC 8439 section 2.5). */
function poly1305(key: Buffer, message: Buffer): Buffer {
  const prime = 2n ** 130n - 5n
  const r = littleEndian(key.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn
  let sum = 0n
  for (let at = 0; at < message.length; at += 16) {
    const part = message.subarray(at, at + 16)
    sum = ((sum + littleEndian(part) + (1n << BigInt(8 * part.length))) * r) % prime
  }
  const tag = (sum + littleEndian(key.subarray(16, 32))) % 2n ** 128n
  return reversed(Buffer.from(tag.toString(16).padStart(32, '0'), 'hex'))
}

/**
 * The text in a box, or null when key, nonce or box are not the ones that belong together.
 * @param box tag (16 bytes) and ciphertext
 * @param key 32 bytes
 * @param nonce 24 bytes
 */
export function openSecretBox(box: Buffer, key: Buffer, nonce: Buffer): Buffer | null {
  if (box.length < 16 || key.length !== 32 || nonce.length !== 24) return null
  const derived = subKey(key, nonce.subarray(0, 16))
  const stream = (index: number): Buffer => block(derived, nonce.subarray(16), index)
  const first = stream(0)
  const body = box.subarray(16)
  if (!timingSafeEqual(poly1305(first.subarray(0, 32), body), box.subarray(0, 16))) return null
  // The first 32 bytes of the stream were the key of the tag.
  const blocks = [first]
  while (blocks.length * 64 < body.length + 32) blocks.push(stream(blocks.length))
  const pad = Buffer.concat(blocks).subarray(32)
  return Buffer.from(body.map((byte, index) => byte ^ (pad[index] ?? 0)))
}
