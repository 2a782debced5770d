/** How the log refuses. Codes are the contract; sentences are for people. */

/** The errno of a failed system call, or the code of another error, or null. */
export function errnoOf(error: unknown): string | null {
  if (!(error instanceof Error)) return null
  return 'code' in error && typeof error.code === 'string' ? error.code : null
}

const pathOf = (error: unknown): string | null =>
  error instanceof Error && 'path' in error && typeof error.path === 'string' ? error.path : null

/**
 * The log cannot be written, or cannot be signed: nothing that needs a record may go on. It stays
 * so until the log is opened anew, because after a failed write or fsync the kernel may call the
 * lost pages clean, and a retry would succeed with the data gone.
 */
export class AuditUnavailable extends Error {
  override readonly name = 'AuditUnavailable'
  readonly code = 'AUDIT_UNAVAILABLE'
  /** As ENOSPC; null where no system call failed. */
  readonly errno: string | null
  /** The file or socket that failed. */
  readonly path: string
  /** RFC 3339 time of the failure. */
  readonly since: string

  /** `inUse` is what was being used; the error's own path, where it has one, is nearer. */
  constructor(inUse: string, cause: unknown) {
    const errno = errnoOf(cause)
    const path = pathOf(cause) ?? inUse
    const said = cause instanceof Error ? cause.message : String(cause)
    super(`the audit log cannot be written (${errno ?? 'error'}, ${path}): ${said}`, { cause })
    this.errno = errno
    this.path = path
    this.since = new Date().toISOString()
  }
}
