/**
 * Runs a task of thread-tasks.ts without stalling the event loop: here when its input is small, in
 * a thread of its own otherwise, which is ended at the deadline.
 */
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'

import { ImageError, imageErrorOf } from './errors.ts'
import {
  TASKS,
  type TaskInput,
  type TaskName,
  type TaskResult,
  type ThreadReport,
} from './thread-tasks.ts'

/** About a millisecond of parsing; a thread costs tens of them. */
const INLINE_BYTES_MAX = 65_536
/** Enough for the largest documents several times over. */
const HEAP_MIB_MAX = 512

const threadFile = new URL(`./thread${extname(import.meta.filename)}`, import.meta.url)

function report(name: TaskName, input: unknown, timeoutMs: number): Promise<ThreadReport> {
  return new Promise((resolve, reject) => {
    const thread = new Worker(threadFile, {
      workerData: { name, input },
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB_MAX },
    })
    const timer = setTimeout(() => {
      void thread.terminate()
      reject(
        new ImageError('IMAGE_TOO_LARGE', `Checking the image took more than ${timeoutMs} ms.`),
      )
    }, timeoutMs)
    thread.once('message', (message: ThreadReport) => resolve(message))
    thread.once('error', reject)
    thread.once('exit', () => {
      clearTimeout(timer)
      reject(new ImageError('IMAGE_TOO_LARGE', 'Checking the image took more memory than it may.'))
    })
  })
}

/**
 * @param bytes how much input there is: decides where the task runs
 * @throws ImageError
 */
export async function runTask<Name extends TaskName>(
  name: Name,
  input: TaskInput<Name>,
  { bytes, timeoutMs }: { readonly bytes: number; readonly timeoutMs: number },
): Promise<TaskResult<Name>> {
  if (bytes <= INLINE_BYTES_MAX) return TASKS[name](input)
  const found = await report(name, input, timeoutMs)
  if (!found.ok) throw imageErrorOf(found.code, found.message)
  // oxlint-disable-next-line no-unsafe-type-assertion -- our own thread ran the function above
  return found.result as TaskResult<Name>
}
