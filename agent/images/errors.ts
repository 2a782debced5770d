/** Why an image was not had. The code is the contract; the sentence is for people. */
export const IMAGE_ERROR_CODES = [
  /** The text is not a reference. */
  'IMAGE_REFERENCE_INVALID',
  /** The registry has no such repository, tag or digest. */
  'IMAGE_UNKNOWN',
  /** Bytes are not what their digest or size says: altered on the way, in the registry or on disk. */
  'IMAGE_DIGEST_MISMATCH',
  /** Manifest, index or configuration is not what its format says, or has two readings. */
  'IMAGE_MANIFEST_INVALID',
  /** The image has no manifest for linux/amd64. */
  'IMAGE_PLATFORM_MISSING',
  /** A cap was reached: bytes, layers, entries, ratio, signatures. */
  'IMAGE_TOO_LARGE',
  /** A layer is not a tar archive that makes one tree. */
  'IMAGE_LAYER_INVALID',
  /** The host's disk has no room for the image above what is kept free. */
  'IMAGE_STORAGE_FULL',
  /** With what is in use of the tenant's images, more than one tenant may have on the disk. */
  'IMAGE_QUOTA_EXCEEDED',
  /** The root image could not be built, for a reason that is not the image's. */
  'IMAGE_BUILD_FAILED',
  /** The registry does not answer, or answers with its own failure. */
  'REGISTRY_UNAVAILABLE',
  /** The registry says no: credentials missing, wrong or not enough. */
  'REGISTRY_REFUSED',
  /** A registry, redirect or token service at an address that agents may not speak to. */
  'REGISTRY_ADDRESS_FORBIDDEN',
  /** Too many images are being verified for the tenant already. */
  'IMAGE_BUSY',
  /** A signing key cannot be read, or is not of a kind that can sign images. */
  'SIGNING_KEY_INVALID',
] as const
export type ImageErrorCode = (typeof IMAGE_ERROR_CODES)[number]

export class ImageError extends Error {
  override readonly name = 'ImageError'
  readonly code: ImageErrorCode
  constructor(code: ImageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const isCode = (code: string): code is ImageErrorCode =>
  IMAGE_ERROR_CODES.some((known) => known === code)

/** An error whose code came from another process or thread; unknown codes are faults of the build. */
export const imageErrorOf = (code: string, message: string): ImageError =>
  new ImageError(isCode(code) ? code : 'IMAGE_BUILD_FAILED', message)

/**
 * Text that strangers wrote, made safe to print: printable ASCII, bounded. Terminals obey escape
 * sequences, and logs are read in terminals.
 */
export function show(text: string): string {
  const safe = text.replace(/[^\x20-\x7e]/gu, '?')
  return `"${safe.length > 200 ? `${safe.slice(0, 197)}...` : safe}"`
}
