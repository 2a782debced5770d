/**
 * One writer at a time: two would give one index to two records, which no later check could undo.
 *
 * The lock is SQLite's on an empty database: a POSIX lock that the kernel drops when the process
 * ends, however it ends. Node has no flock, and lock files with process ids go stale or race.
 */
import { DatabaseSync } from 'node:sqlite'

export interface WriterLock {
  release(): void
}

/** Another process writes this log. */
export class LogBusy extends Error {
  override readonly name = 'LogBusy'
  readonly code = 'AUDIT_LOG_BUSY'
}

/**
 * Takes the lock of the log whose lock file is `file`.
 * @throws LogBusy when another process, or this one, holds it
 */
export function lockWriter(file: string): WriterLock {
  const database = new DatabaseSync(file, { timeout: 0 })
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (cause) {
    database.close()
    if (cause instanceof Error && /locked|busy/iu.test(cause.message)) {
      throw new LogBusy(`${file}: another process writes this log`, { cause })
    }
    throw cause
  }
  return {
    release: () => {
      database.close()
    },
  }
}
