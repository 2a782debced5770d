/**
 * A session between a caller's WebSocket and a process in a pod. Back-pressure goes both ways: a process whose caller
 * does not read gets no credit, a caller whose process does not read is not read from; and neither holds anything here
 * but the little that is under way.
 */
import type { WebSocket } from 'ws'
import {
  type ExecEnd,
  type ExecStream,
  type OutputName,
  WINDOW_BYTES,
} from '../native/exec-stream.ts'
import {
  BadMessage,
  CHANNELS,
  failure,
  message,
  nonZeroExit,
  readMessage,
  type Status,
  SUCCESS,
  statusMessage,
} from './exec-channels.ts'
import type { EndReason } from './tasks/exec.ts'

/** Without a byte either way, as Kubernetes has it. A caller that is dead is found out by its connection. */
const IDLE_MS = 4 * 3600 * 1000
/** Bytes that wait for a caller: no pings are answered beyond. */
const WAITING_BYTES_MAX = 65_536
const NORMAL_CLOSURE = 1000
const POLICY_VIOLATION = 1008

export interface Wanted {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  readonly terminal: boolean
}

/** guest-init's codes (native/wire/src/payload.rs), as a shell's exit codes. */
const NOT_FOUND = 1
const NOT_EXECUTABLE = 2
const CODES: Readonly<Record<number, string>> = {
  3: 'APP_USER',
  4: 'APP_CWD',
  10: 'EXEC_BUSY',
  11: 'EXEC_REFUSED',
}

export function statusOf(end: ExecEnd): Status {
  if (end.kind === 'cut') return failure('EXEC_CUT_OFF', `The session was cut off: ${end.why}.`)
  if (end.kind === 'exit') {
    const code = end.how === 'code' ? end.value : 128 + end.value
    return code === 0 ? SUCCESS : nonZeroExit(code)
  }
  if (end.code === NOT_FOUND || end.code === NOT_EXECUTABLE) {
    return nonZeroExit(end.code === NOT_FOUND ? 127 : 126, end.text)
  }
  return failure(CODES[end.code] ?? 'EXEC_FAILED', end.text)
}

/** Sends the last message, and closes. */
export function finish(socket: WebSocket, status: Status): void {
  socket.send(statusMessage(status), () => socket.close(NORMAL_CLOSURE))
}

/** As far as they are read. */
export function answerPings(socket: WebSocket): void {
  socket.on('ping', (data) => {
    if (socket.bufferedAmount < WAITING_BYTES_MAX) socket.pong(data)
  })
}

/** Ends a connection on which nothing moves. Answers what to call when something does. */
function endWhenIdle(socket: WebSocket): () => void {
  const timer = setTimeout(() => socket.terminate(), IDLE_MS)
  socket.once('close', () => clearTimeout(timer))
  return () => timer.refresh()
}

/**
 * Output on its way to the caller, one message at a time. The credit comes back when the bytes have left this process: a
 * caller that does not read stops the sender. What comes meanwhile is gathered, at most a window of it: credit counts
 * bytes, and a guest may send each in a frame of its own.
 */
class Outgoing {
  readonly #gathered = Buffer.alloc(WINDOW_BYTES)
  #length = 0
  #isUnderWay = false
  readonly #send: (bytes: Buffer, left: (error?: Error | null) => void) => void
  readonly #taken: (bytes: number) => void

  constructor(
    send: (bytes: Buffer, left: (error?: Error | null) => void) => void,
    taken: (bytes: number) => void,
  ) {
    this.#send = send
    this.#taken = taken
  }

  /** Never more than the window has room for. */
  push(bytes: Buffer): void {
    this.#length += bytes.copy(this.#gathered, this.#length)
    if (!this.#isUnderWay) this.flush()
  }

  /** Sends what was gathered, behind what is under way. */
  flush(): void {
    const length = this.#length
    if (length === 0) return
    this.#length = 0
    this.#isUnderWay = true
    this.#send(Buffer.from(this.#gathered.subarray(0, length)), (error) => {
      this.#isUnderWay = false
      if (error !== undefined && error !== null) return
      this.#taken(length)
      this.flush()
    })
  }
}

/**
 * Takes over a socket that was paused when it was made, so that nothing a caller said early is lost.
 * Runs until both ends are done; resolves with how it ended, and why if it was not the process.
 */
export function converse(
  socket: WebSocket,
  stream: ExecStream,
  wanted: Wanted,
  stopping: AbortSignal,
): Promise<{ readonly end: ExecEnd; readonly reason: EndReason }> {
  let reason: EndReason = null
  const leave = (why: EndReason): void => {
    reason ??= why
    stream.close()
  }
  const moved = endWhenIdle(socket)
  const outgoing = (name: OutputName): Outgoing =>
    new Outgoing(
      (bytes, left) =>
        socket.send(message(CHANNELS[name], bytes), (error) => {
          moved()
          left(error)
        }),
      (bytes) => stream.taken(name, bytes),
    )
  const outputs = { stdout: outgoing('stdout'), stderr: outgoing('stderr') }
  stream.on('output', (name: OutputName, bytes: Buffer) => {
    if (wanted[name]) outputs[name].push(bytes)
    else stream.taken(name, bytes.length)
  })
  answerPings(socket)
  stream.on('drain', () => socket.resume())
  // The end of a terminal's input is a character, which nobody typed.
  if (!wanted.stdin && !wanted.terminal) stream.stdinEof()
  socket.on('message', (data: Buffer) => {
    moved()
    try {
      hear(data)
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error
      leave('caller-gone')
      socket.close(POLICY_VIOLATION, error.message)
    }
  })
  const hear = (data: Buffer): void => {
    const said = readMessage(data)
    if (said.kind === 'resize') stream.resize(said)
    else if (!wanted.stdin) return
    else if (said.kind === 'stdin-end') stream.stdinEof()
    else if (said.kind === 'stdin' && !stream.stdin(Buffer.from(said.bytes))) socket.pause()
  }
  socket.on('close', () => leave('caller-gone'))
  if (socket.readyState !== socket.OPEN) leave('caller-gone')
  socket.resume()
  return new Promise((resolve) => {
    // Nobody will be there to hear the end.
    const stop = (): void => {
      leave('agent-stopped')
      socket.terminate()
      resolve({ end: { kind: 'cut', why: 'the agent ended' }, reason: 'agent-stopped' })
    }
    stopping.addEventListener('abort', stop, { once: true })
    if (stopping.aborted) stop()
    stream.on('end', (end) => {
      stopping.removeEventListener('abort', stop)
      outputs.stdout.flush()
      outputs.stderr.flush()
      if (socket.readyState === socket.OPEN) finish(socket, statusOf(end))
      resolve({ end, reason })
    })
  })
}
