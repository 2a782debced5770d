/** What the worker refuses a layer for. The code is the contract; the sentence goes to the tenant. */
export const ROOTFS_FAILURES = [
  /** A layer's bytes are not a tar archive that this parser accepts, or make an impossible tree. */
  'IMAGE_LAYER_INVALID',
  /** A cap on bytes, entries or compression ratio was reached. */
  'IMAGE_TOO_LARGE',
  /** The root image does not fit into the room that the request gives it. */
  'ROOTFS_OUTPUT_TOO_LARGE',
  /** A layer's bytes, packed or unpacked, are not what the image's documents name. */
  'IMAGE_DIGEST_MISMATCH',
  /** The request is not what agent/images writes: a fault of ours, not of the image. */
  'ROOTFS_REQUEST_INVALID',
] as const
export type RootfsFailureCode = (typeof ROOTFS_FAILURES)[number]

export class RootfsFailure extends Error {
  override readonly name = 'RootfsFailure'
  readonly code: RootfsFailureCode
  constructor(code: RootfsFailureCode, message: string) {
    super(message)
    this.code = code
  }
}

/** A layer that is not acceptable; `what` completes "layer refused: ...". */
export const invalid = (what: string): RootfsFailure =>
  new RootfsFailure('IMAGE_LAYER_INVALID', what)

/** A cap that was reached. */
export const tooLarge = (what: string): RootfsFailure => new RootfsFailure('IMAGE_TOO_LARGE', what)

/**
 * A name out of a hostile archive, made safe to print: printable ASCII, bounded. Names are kept as
 * one character a byte (latin1), so every other character is shown as its byte.
 */
export function show(name: string): string {
  const safe = name.replace(
    /[^\x20-\x7e]/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
  return `"${safe.length > 120 ? `${safe.slice(0, 117)}...` : safe}"`
}
