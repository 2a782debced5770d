/** The far side of run.ts: one task, one report, end. */
import { parentPort, workerData } from 'node:worker_threads'

import { ImageError } from './errors.ts'
import { TASKS, type ThreadReport } from './thread-tasks.ts'

function reportOf(): ThreadReport {
  try {
    const { name, input }: { name: keyof typeof TASKS; input: never } = workerData
    return { ok: true, result: TASKS[name](input) }
  } catch (error) {
    if (error instanceof ImageError) return { ok: false, code: error.code, message: error.message }
    throw error
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread's port, no window
parentPort?.postMessage(reportOf())
