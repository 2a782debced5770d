/** Receipts: inclusion proofs under a signed checkpoint, in the form of c2sp.org/tlog-proof. */
import { HASH_BYTES, leafHash, verifyInclusion } from './merkle.ts'
import {
  type Checkpoint,
  decodeBase64,
  NOTE_BYTES_MAX,
  NoteError,
  openCheckpoint,
  parseDecimal,
  parseVkey,
} from './note.ts'

const HEADER = 'c2sp.org/tlog-proof@v1'
const HASHES_MAX = 63

/** A receipt taken apart; nothing in it is verified yet. */
export interface Receipt {
  readonly index: number
  /** Audit path, sibling of the leaf first. */
  readonly hashes: readonly Buffer[]
  /** The signed checkpoint, verbatim. */
  readonly checkpoint: string
}

export const formatReceipt = (receipt: Receipt): string =>
  [
    HEADER,
    `index ${receipt.index}`,
    ...receipt.hashes.map((hash) => hash.toString('base64')),
    '',
    receipt.checkpoint,
  ].join('\n')

/** @throws NoteError NOTE_MALFORMED */
export function parseReceipt(text: string): Receipt {
  const split = text.indexOf('\n\n')
  const [header, indexLine = '', ...lines] = text.slice(0, Math.max(split, 0)).split('\n')
  const index = indexLine.startsWith('index ') ? parseDecimal(indexLine.slice(6)) : null
  const hashes = lines.map(decodeBase64).filter((hash) => hash?.length === HASH_BYTES)
  const known = hashes.filter((hash) => hash !== null)
  if (
    text.length > NOTE_BYTES_MAX ||
    header !== HEADER ||
    index === null ||
    known.length !== lines.length ||
    known.length > HASHES_MAX
  ) {
    throw new NoteError('NOTE_MALFORMED', 'not a receipt in the form of c2sp.org/tlog-proof@v1')
  }
  return { index, hashes: known, checkpoint: text.slice(split + 2) }
}

/** The record is in the log at `index`, under a checkpoint that the log signed. */
export interface VerifiedReceipt {
  readonly index: number
  readonly checkpoint: Checkpoint
}

/** The receipt is well-formed and signed, and is of another record. */
export class ReceiptMismatch extends Error {
  override readonly name = 'ReceiptMismatch'
  readonly code = 'RECEIPT_MISMATCH'
}

/**
 * Verifies a receipt of the record with these canonical bytes, under one of the keys.
 * @throws NoteError when it is malformed or not signed by one of the keys
 * @throws ReceiptMismatch when it is of another record
 */
export function verifyReceipt(
  text: string,
  record: Uint8Array,
  vkeys: readonly string[],
): VerifiedReceipt {
  const receipt = parseReceipt(text)
  const checkpoint = openCheckpoint(receipt.checkpoint, vkeys.map(parseVkey))
  const at = { index: receipt.index, size: checkpoint.size }
  if (!verifyInclusion(at, leafHash(record), receipt.hashes, checkpoint.root)) {
    throw new ReceiptMismatch(`the record is not at index ${receipt.index} of ${checkpoint.origin}`)
  }
  return { index: receipt.index, checkpoint }
}
