/** Reading a pod's log as it grows, at the reader's own speed. */
import { watch } from 'node:fs'
import { type PodLogGap, PodLogReader, type PodLogRecord } from './pod-log.ts'

/** inotify may lose an event when its queue is full; the log is looked at this often regardless. */
const LOOK_MS = 1000

export interface FollowOptions {
  /** Logical offset to begin at; 0 is the beginning. */
  readonly since: number
  /** Wait for more after the end of the log, until `ended` is aborted. */
  readonly follow: boolean
  /** The pod has ended: read what is left, then stop. */
  readonly ended: AbortSignal
  /** The reader has gone: stop at once. */
  readonly gone: AbortSignal
}

/** Resolves at the next change of the file, when one of the signals fires, or after a while. */
function change(path: string, signals: readonly AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(path, { persistent: false })
    const finish = (): void => {
      clearTimeout(timer)
      watcher.close()
      for (const signal of signals) signal.removeEventListener('abort', finish)
      resolve()
    }
    const timer = setTimeout(finish, LOOK_MS)
    watcher.on('change', finish)
    watcher.on('error', finish)
    for (const signal of signals) signal.addEventListener('abort', finish)
    if (signals.some((signal) => signal.aborted)) finish()
  })
}

/** Yields records and gaps in order. @throws PodLogError */
export async function* followPodLog(
  path: string,
  options: FollowOptions,
): AsyncGenerator<PodLogRecord | PodLogGap> {
  const reader = await PodLogReader.open(path, options.since)
  try {
    for (;;) {
      if (options.gone.aborted) return
      const before = reader.next
      const last = !options.follow || options.ended.aborted // asked before reading, or the tail is lost
      // oxlint-disable-next-line no-await-in-loop -- a log is read in order
      const found = await reader.read()
      yield* found
      if (found.length > 0 || reader.next !== before) continue
      if (last) return
      // oxlint-disable-next-line no-await-in-loop -- waiting is the point
      await change(path, [options.ended, options.gone])
    }
  } finally {
    await reader.close()
  }
}
