/**
 * One run of a one-shot worker (docs/formats.md section 9): its request in a sealed memfd, its
 * answer through a pipe, its end over the connection to spawn, which kills it when that closes.
 */
import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { memfdSealed, pipe } from './addon.ts'
import { integer, members, nullable } from './shape.ts'

export const WORKER_ANSWER_BYTES_MAX: number = 1 << 20
const EXIT_FRAME_BYTES_MAX = 4096

export interface WorkerRequest {
  readonly kind: 'rootfs' | 'seccomp'
  /** Canonical JSON; the worker reads it from descriptor 3. */
  readonly request: Uint8Array
  /** Descriptors 5 and up of the worker, in this order. They stay the caller's. */
  readonly fds: readonly number[]
  /** How large any file may become that it writes; root has a maximum of its own. */
  readonly fileBytes: number
  /** Wall time; then the worker is killed. */
  readonly timeoutMs: number
}

/** A worker that did not deliver. Codes: WORKER_TIMEOUT, WORKER_FAILED, WORKER_ANSWER_TOO_LARGE. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError'
  readonly code: 'WORKER_TIMEOUT' | 'WORKER_FAILED' | 'WORKER_ANSWER_TOO_LARGE'
  constructor(code: WorkerError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** Everything until the end of the stream. @throws WorkerError when it is more than `max` bytes */
async function readAll(stream: Socket, max: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > max) {
      throw new WorkerError('WORKER_ANSWER_TOO_LARGE', `the worker answered more than ${max} bytes`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** Spawn's last message on the connection says how the worker ended. */
function readEnd(bytes: Buffer): { code: number | null; signal: number | null } {
  if (bytes.length < 4 || bytes.readUInt32LE(0) !== bytes.length - 4) {
    throw new WorkerError('WORKER_FAILED', 'casemate-spawn ended before the worker did')
  }
  const message: unknown = JSON.parse(bytes.toString('utf8', 4))
  if (typeof message === 'object' && message !== null && Reflect.get(message, 'ok') === false) {
    throw new WorkerError('WORKER_FAILED', String(Reflect.get(message, 'message')).slice(0, 1024))
  }
  const { exit } = members(message, 'answer', ['ok', 'exit'])
  const end = members(exit, 'exit', ['code', 'signal'])
  return {
    code: nullable(end['code'], (code) => integer(code, 'code', 0, 255)),
    signal: nullable(end['signal'], (signal) => integer(signal, 'signal', 1, 64)),
  }
}

type Start = (work: WorkerRequest, fds: readonly number[]) => Promise<number>

/** `start` hands the descriptors over and returns the connection that holds the worker's life. */
export async function runWorker(work: WorkerRequest, start: Start): Promise<Buffer> {
  const request = memfdSealed(`casemate-${work.kind}`, Buffer.from(work.request))
  const ends = pipe()
  const answer = new Socket({ fd: ends.read, readable: true, writable: false })
  let connection: Socket | undefined
  let late = false
  const timer = setTimeout(() => {
    late = true
    answer.destroy()
    connection?.destroy()
  }, work.timeoutMs)
  try {
    const life = await start(work, [request, ends.write, ...work.fds]).finally(() => {
      closeSync(ends.write) // ours, or the pipe would never end
    })
    connection = new Socket({ fd: life, readable: true, writable: true })
    const [bytes, end] = await Promise.all([
      readAll(answer, WORKER_ANSWER_BYTES_MAX),
      readAll(connection, EXIT_FRAME_BYTES_MAX),
    ])
    const { code, signal } = readEnd(end)
    if (code !== 0) {
      const how = code === null ? `signal ${String(signal)}` : `exit code ${code}`
      throw new WorkerError('WORKER_FAILED', `the ${work.kind} worker ended with ${how}`)
    }
    return bytes
  } catch (cause) {
    if (!late) throw cause
    const message = `the ${work.kind} worker took more than ${work.timeoutMs} ms`
    throw new WorkerError('WORKER_TIMEOUT', message)
  } finally {
    clearTimeout(timer)
    closeSync(request)
    answer.destroy()
    connection?.destroy()
  }
}
