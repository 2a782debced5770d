/**
 * Talks to casemate-spawn: docs/formats.md section 5. One connection for each request.
 *
 * A refusal of spawn comes out as SpawnError with spawn's own code. What goes wrong on the way has
 * the codes SPAWN_UNREACHABLE (nobody listens), SPAWN_GONE (it ended before it answered),
 * SPAWN_TIMEOUT and SPAWN_PROTOCOL (an answer that is not one). A spawn that is restarted leaves its
 * listening socket to the next, which answers who connected meanwhile; what was asked of the one
 * before is asked again, where twice is as good as once: all but launches, changes of volumes and workers. After a launch that failed on the way nobody here knows whether it runs: ask `list`.
 */
import { closeSync } from 'node:fs'
import { type Canonical, canonicalBytes, parseCanonical } from '../policy/canonical.ts'
import { type ExchangeResult, exchange } from './addon.ts'
import type { Usage } from './counters.ts'
import { BadShape, boolean, integer, list, type Members, members } from './shape.ts'
import {
  type HostDescription,
  type PodStatus,
  readDescription,
  readMetrics,
  readPodStatus,
  readTemplate,
  readUsage,
  readVolumeStatus,
  type Template,
  type VmmMetrics,
  type VolumeStatus,
} from './spawn-answers.ts'
import { runWorker, type WorkerRequest } from './worker-run.ts'

const REQUEST_BYTES_MAX = 2 << 20
const ANSWER_BYTES_MAX = 1 << 20
const PODS_MAX = 4096
const VOLUMES_MAX = 256
const ANSWER_MS = 10_000
/** A copy of the largest volume, on a slow disk. */
const VOLUME_MS = 3_600_000
/** A launch clones, jails and checks digests of whole files on a busy host. */
const LAUNCH_MS = 600_000
/** Spawn waits 120 s for the guest. */
const RESIZE_MS = 150_000
/** A template boots a guest once; software KVM takes its time, and spawn ends it in its own. */
const TEMPLATE_MS = 3_600_000

export class SpawnError extends Error {
  override readonly name = 'SpawnError'
  readonly code: string
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** The ticket, what it speaks for, and the descriptors, which stay the caller's. */
export interface LaunchCall {
  /** A C2SP tlog-proof. */
  readonly ticket: string
  /** Canonical bytes of the launch.intent record. */
  readonly record: string
  /** Canonical bytes of the spec. */
  readonly spec: string
  readonly image: number
  readonly log: number
  /** Sealed; absent for a spec without files. */
  readonly files?: number
}

export interface TemplateAnswer {
  readonly template: Template
  readonly kept: boolean
}

/** A volume.intent and its receipt. */
export interface VolumePapers {
  readonly ticket: string
  /** Canonical bytes of the record. */
  readonly record: string
}

/** A snapshot to be read: a descriptor that the caller owns, and its bytes. */
export interface VolumeData {
  readonly fd: number
  readonly sizeBytes: number
}

/** A running pod: the VMM's pid and the descriptor of its pod stream, which the caller owns. */
export interface RunningPod {
  readonly pid: number
  readonly stream: number
}

export interface SpawnClient {
  describe(): Promise<HostDescription>
  launch(call: LaunchCall): Promise<RunningPod>
  /** Resolves when it is built; `kept`: it was there already, or on disk. */
  template(vcpus: number, memoryMib: number): Promise<TemplateAnswer>
  kill(pod: string): Promise<void>
  /** Asks the guest to end and kills it after `timeoutMs`; resolves when spawn took the request. */
  stop(pod: string, timeoutMs: number): Promise<void>
  /** Stops its processors and devices where they are. stop() and kill() end a pause. */
  pause(pod: string): Promise<void>
  resume(pod: string): Promise<void>
  /** Gives it more disk; resolves when its guest has grown the file system. */
  resize(pod: string, scratchBytes: number): Promise<void>
  list(): Promise<readonly PodStatus[]>
  adopt(pod: string): Promise<RunningPod>
  /** What the VMM of a running pod has counted so far. */
  metrics(pod: string): Promise<VmmMetrics>
  /** What the kernel counts of it; for a paused pod as well. */
  usage(pod: string): Promise<Usage>
  forget(pod: string): Promise<void>
  /** A tenant's volumes and snapshots. */
  volumes(tenant: string): Promise<readonly VolumeStatus[]>
  /** Does what the record says; resolves when it is done and on disk. */
  volume(papers: VolumePapers): Promise<void>
  /** The same for a record that says export. */
  exportVolume(papers: VolumePapers): Promise<VolumeData>
  /** Runs a one-shot worker and resolves with its answer's bytes. @throws WorkerError */
  worker(request: WorkerRequest): Promise<Buffer>
}

/** How often a spawn may end under one request. */
const TRIES_MAX = 3

const gone = new Set(['ECONNRESET', 'EPIPE'])
const unreachable = new Set(['ENOENT', 'ECONNREFUSED', 'EACCES', 'ENOTDIR'])

function failureOf(cause: unknown): SpawnError {
  const code: unknown = cause instanceof Error ? Reflect.get(cause, 'code') : undefined
  const why = cause instanceof Error ? cause.message : String(cause)
  if (code === 'ETIMEDOUT') {
    return new SpawnError('SPAWN_TIMEOUT', 'casemate-spawn did not answer in time', { cause })
  }
  if (typeof code === 'string' && gone.has(code)) {
    const message = 'casemate-spawn ended before it answered; ask again'
    return new SpawnError('SPAWN_GONE', message, { cause })
  }
  if (typeof code === 'string' && unreachable.has(code)) {
    const message = `casemate-spawn cannot be reached (${why}); is it running?`
    return new SpawnError('SPAWN_UNREACHABLE', message, { cause })
  }
  return new SpawnError('SPAWN_PROTOCOL', `casemate-spawn broke the protocol: ${why}`, { cause })
}

/** A request on the wire: u32 length, then canonical JSON. */
export function frameOf(value: Canonical): Buffer {
  const bytes = canonicalBytes(value)
  if (bytes.length > REQUEST_BYTES_MAX) {
    throw new SpawnError(
      'SPAWN_REQUEST_TOO_LARGE',
      `a request is at most ${REQUEST_BYTES_MAX} bytes`,
    )
  }
  const frame = Buffer.alloc(4 + bytes.length)
  frame.writeUInt32LE(bytes.length, 0)
  frame.set(bytes, 4)
  return frame
}

function objectOf(bytes: Uint8Array): Members {
  const value: unknown = parseCanonical(bytes)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new BadShape('answer', 'must be an object')
  }
  return { ...value }
}

/** The answer's members when it is a yes; spawn's refusal, thrown, when it is a no. */
export function readAnswer(bytes: Uint8Array): Members {
  const answer = objectOf(bytes)
  if (answer['ok'] === true) return answer
  const no = members(answer, 'answer', ['ok', 'code', 'message'])
  const code = no['code']
  if (no['ok'] !== false || typeof code !== 'string' || !/^[A-Z][A-Z0-9_]{1,63}$/u.test(code)) {
    throw new BadShape('answer', 'must be a yes, or a no with a code')
  }
  throw new SpawnError(code, String(no['message']).slice(0, 1024))
}

interface Call {
  readonly request: { readonly [name: string]: Canonical }
  readonly fds?: readonly number[]
  readonly fdsMax?: number
  readonly timeoutMs?: number
  readonly keepOpen?: boolean
}

interface Answer {
  readonly answer: Members
  readonly fds: readonly number[]
  readonly connection: number
}

function closeAll(result: ExchangeResult): void {
  for (const fd of result.fds) closeSync(fd)
  if (result.connection >= 0) closeSync(result.connection)
}

/** One request and its answer; descriptors reach the caller only with an answer that parsed. */
async function ask(path: string, call: Call): Promise<Answer> {
  let result: ExchangeResult
  try {
    result = await exchange(path, frameOf(call.request), call.fds ?? [], {
      answerMax: ANSWER_BYTES_MAX,
      fdsMax: call.fdsMax ?? 0,
      timeoutMs: call.timeoutMs ?? ANSWER_MS,
      keepOpen: call.keepOpen ?? false,
    })
  } catch (cause) {
    throw cause instanceof SpawnError ? cause : failureOf(cause)
  }
  try {
    const { answer, fds, connection } = result
    return { answer: readAnswer(answer), fds, connection }
  } catch (cause) {
    closeAll(result)
    throw cause instanceof SpawnError ? cause : failureOf(cause)
  }
}

/** Asks again when spawn ended meanwhile: for requests that do no more when they are made twice. */
async function askAgain(path: string, call: Call): Promise<Answer> {
  for (let tries = 1; ; tries += 1) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- asking again is the point
      return await ask(path, call)
    } catch (cause) {
      const isGone = cause instanceof SpawnError && cause.code === 'SPAWN_GONE'
      if (!isGone || tries === TRIES_MAX) throw cause
    }
  }
}

/** Parses an answer's members; what does not fit is spawn's fault, and its descriptors are closed. */
function parse<T>(answer: Answer, read: (answer: Members) => T): T {
  try {
    return read(answer.answer)
  } catch (cause) {
    closeAll({ answer: Buffer.alloc(0), fds: answer.fds, connection: answer.connection })
    throw failureOf(cause)
  }
}

function readRunning(answer: Answer): RunningPod {
  return parse(answer, (found) => {
    const pid = integer(members(found, 'answer', ['ok', 'pid'])['pid'], 'pid', 1)
    const [stream] = answer.fds
    if (stream === undefined) throw new BadShape('answer', 'must come with a pod stream')
    return { pid, stream }
  })
}

type VolumeCalls = Pick<SpawnClient, 'volumes' | 'volume' | 'exportVolume'>

const volumeCalls = (path: string): VolumeCalls => ({
  volumes: async (tenant) =>
    parse(await askAgain(path, { request: { op: 'volumes', tenant } }), (answer) => {
      const found = members(answer, 'answer', ['ok', 'volumes'])['volumes']
      return list(found, 'volumes', VOLUMES_MAX, readVolumeStatus)
    }),
  volume: async (papers) => {
    const request = { op: 'volume', ...papers }
    const answer = await ask(path, { request, timeoutMs: VOLUME_MS })
    parse(answer, (found) => members(found, 'answer', ['ok']))
  },
  exportVolume: async (papers) => {
    const request = { op: 'volume', ...papers }
    const answer = await ask(path, { request, fdsMax: 1 })
    return parse(answer, (found) => {
      const sizeBytes = integer(
        members(found, 'answer', ['ok', 'size_bytes'])['size_bytes'],
        'size_bytes',
      )
      const [fd] = answer.fds
      if (fd === undefined) throw new BadShape('answer', 'must come with a descriptor')
      return { fd, sizeBytes }
    })
  },
})

/** A client for the spawn that listens at `path`. Holds no connection. */
export function spawnClient(path: string): SpawnClient {
  const done = async (request: Call['request']): Promise<void> => {
    parse(await askAgain(path, { request }), (answer) => members(answer, 'answer', ['ok']))
  }
  return {
    describe: async () =>
      parse(await askAgain(path, { request: { op: 'describe' } }), readDescription),
    launch: async ({ ticket, record, spec, image, log, files }) => {
      const request = { op: 'launch', ticket, record, spec }
      const fds = files === undefined ? [image, log] : [image, log, files]
      return readRunning(await ask(path, { request, fds, fdsMax: 1, timeoutMs: LAUNCH_MS }))
    },
    template: async (vcpus, memoryMib) => {
      const request = { op: 'template', vcpus, memory_mib: memoryMib }
      return parse(await askAgain(path, { request, timeoutMs: TEMPLATE_MS }), (answer) => {
        const { kept, template } = members(answer, 'answer', ['kept', 'ok', 'template'])
        return { kept: boolean(kept, 'kept'), template: readTemplate(template, 'template') }
      })
    },
    kill: (pod) => done({ op: 'kill', pod }),
    stop: (pod, timeoutMs) => done({ op: 'stop', pod, timeout_ms: timeoutMs }),
    pause: (pod) => done({ op: 'pause', pod }),
    resume: (pod) => done({ op: 'resume', pod }),
    resize: async (pod, scratchBytes) => {
      const request = { op: 'resize', pod, scratch_bytes: scratchBytes }
      parse(await ask(path, { request, timeoutMs: RESIZE_MS }), (answer) => {
        const found = members(answer, 'answer', ['ok', 'scratch_bytes'])['scratch_bytes']
        integer(found, 'scratch_bytes', scratchBytes, scratchBytes)
      })
    },
    list: async () =>
      parse(await askAgain(path, { request: { op: 'list' } }), (answer) =>
        list(members(answer, 'answer', ['ok', 'pods'])['pods'], 'pods', PODS_MAX, readPodStatus),
      ),
    adopt: async (pod) =>
      readRunning(await askAgain(path, { request: { op: 'adopt', pod }, fdsMax: 1 })),
    metrics: async (pod) =>
      parse(await askAgain(path, { request: { op: 'metrics', pod } }), readMetrics),
    usage: async (pod) =>
      parse(await askAgain(path, { request: { op: 'usage', pod } }), (answer) =>
        readUsage(members(answer, 'answer', ['ok', 'usage'])['usage']),
      ),
    forget: (pod) => done({ op: 'forget', pod }),
    ...volumeCalls(path),
    worker: (work) =>
      runWorker(work, async ({ kind, fileBytes }, fds) => {
        const request = { op: 'worker', kind, file_bytes: fileBytes }
        const answer = await ask(path, { request, fds, keepOpen: true })
        parse(answer, (found) => integer(members(found, 'answer', ['ok', 'pid'])['pid'], 'pid', 1))
        return answer.connection
      }),
  }
}
