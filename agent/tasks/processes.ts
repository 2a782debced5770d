/** The processes of a pod, as our own code in the pod sees them: a session as of exec, on record, and bounded. */
import { ByteQueue } from '../../native/byte-queue.ts'
import type { ExecEnd, ExecStream } from '../../native/exec-stream.ts'
import {
  BadProcesses,
  type PodProcess,
  PROCESSES_BYTES_MAX,
  readProcesses,
} from '../../native/pod-processes.ts'
import { ApiError } from '../errors.ts'
import type { ChangeCall } from './changes.ts'
import { admitExec, type EndReason, type ExecCall, type ExecPorts, exec } from './exec.ts'

/** From the record to the end of the list. */
const LIST_MS = 30_000
/** Frames that a list may come in; our own code fills them. */
const PIECES_MAX = 16_384

interface Said {
  readonly text: string
  readonly end: ExecEnd
  readonly reason: EndReason
}

/** All that it says, as long as that is little and comes soon. A guest may never end what it was told to. */
function listen(stream: ExecStream, stopping: AbortSignal): Promise<Said> {
  const said = new ByteQueue()
  let pieces = 0
  return new Promise((resolve) => {
    const finish = (end: ExecEnd, reason: EndReason): void => {
      clearTimeout(timer)
      stopping.removeEventListener('abort', stop)
      if (reason !== null) stream.close()
      resolve({ text: said.first(said.length).toString('utf8'), end, reason })
    }
    const cut = (why: string, reason: EndReason): void => finish({ kind: 'cut', why }, reason)
    const timer = setTimeout(() => cut('it did not come in time', 'caller-gone'), LIST_MS)
    const stop = (): void => cut('the agent ended', 'agent-stopped')
    stopping.addEventListener('abort', stop, { once: true })
    stream.once('end', (end) => finish(end, null))
    stream.on('output', (name, bytes) => {
      stream.taken(name, bytes.length)
      if (name !== 'stdout') return
      said.append(bytes)
      pieces += 1
      if (said.length > PROCESSES_BYTES_MAX || pieces > PIECES_MAX) {
        cut('the list is too long', 'caller-gone')
      }
    })
    stream.stdinEof()
  })
}

const unavailable = (pod: string, why: string, cause?: unknown): ApiError =>
  new ApiError(
    'PROCESSES_UNAVAILABLE',
    `The processes of pod ${pod} cannot be told: ${why}. Try again.`,
    { pod },
    { cause },
  )

function listIn({ text, end }: Said, pod: string): readonly PodProcess[] {
  if (end.kind === 'error') throw unavailable(pod, end.text)
  if (end.kind === 'cut') throw unavailable(pod, end.why)
  // With 1 it says that there are more than it tells of.
  if (end.how !== 'code' || end.value > 1) throw unavailable(pod, 'what lists them was killed')
  try {
    return readProcesses(text)
  } catch (cause) {
    if (!(cause instanceof BadProcesses)) throw cause
    throw unavailable(pod, cause.message, cause)
  }
}

/**
 * @throws ApiError POD_STATE_CONFLICT, EXEC_SESSIONS_FULL, TOO_MANY_REQUESTS, PROCESSES_UNAVAILABLE
 * @throws Refusal; AuditUnavailable
 */
export async function processes(
  ports: ExecPorts,
  call: ChangeCall,
): Promise<readonly PodProcess[]> {
  const asked: ExecCall = { ...call, wish: { errand: { kind: 'processes' }, user: null } }
  const release = ports.execs.begin(call.scope.tenant)
  try {
    const decision = await admitExec(ports, asked)
    const executed = await exec(ports, asked, decision)
    const said = await listen(executed.stream, ports.execs.stopping)
    await executed.ended(said.end, said.reason)
    return listIn(said, call.pod)
  } finally {
    release()
  }
}
