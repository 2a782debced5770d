/** A signature as it was found: bytes, not yet believed. Plain data, so that a thread can take it. */
import type { Evidence } from '../../../policy/index.ts'

export interface FoundSignature {
  readonly form: Evidence['form']
  /** Digest of the blob that holds the signature. */
  readonly artifact: string
  /** Form `tag`: the simplesigning payload. Form `bundle`: the bundle. */
  readonly bytes: Uint8Array
  /** Form `tag`: the signature of the payload, in base64, as the annotation says; else null. */
  readonly signature: string | null
}

/** A signature that could not even be fetched as one; `detail` completes "signature refused: ...". */
export interface BrokenSignature {
  readonly form: Evidence['form']
  readonly artifact: string
  readonly detail: string
}

/** What policy decides from, and beside it what people want to know. */
export interface CheckedSignature extends Evidence {
  /** Digest of the signed bytes; null when they could not be read. */
  readonly payload: string | null
  /** A sentence about the outcome. */
  readonly detail: string
}

/** A key to try: policy's keysToTry gives them. */
export interface TrustedKey {
  readonly keyId: string
  readonly pem: string
}
