/** Configs and secrets that a tenant keeps here for its pods. */
import type { FileName, StoredKind, TenantId } from '../policy/index.ts'

/** Of a tenant, configs and secrets together. */
export const STORED_FILES_MAX = 256
/** Bytes of all of them: the database is on the host's disk, and read and backed up as a whole. */
export const STORED_BYTES_MAX: number = 16 * 2 ** 20

/** What may be shown of one. */
export interface StoredFile {
  readonly tenant: TenantId
  readonly kind: StoredKind
  readonly name: FileName
  /** A fresh one each time that something is stored by the name. */
  readonly version: string
  /** Bytes. */
  readonly size: number
  /** Who stored it. */
  readonly identity: string
  readonly createdMs: number
  /** Of the key that it is encrypted with. */
  readonly keyId: string
}

/** One as it is kept: nobody but the holder of the key reads its content. */
export interface SealedFile extends StoredFile {
  readonly nonce: Uint8Array
  /** AES-256-GCM, the tag behind it. */
  readonly sealed: Uint8Array
}
