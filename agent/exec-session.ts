/**
 * A session between a caller's WebSocket and a process in a pod. Back-pressure goes both ways: a process whose caller
 * does not read gets no credit, a caller whose process does not read is not read from; and neither holds anything here
 * but the little that is under way.
 */
import type { WebSocket } from 'ws'
import type { ExecEnd, ExecStream, OutputName } from '../native/exec-stream.ts'
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

/** Ends a connection on which nothing moves. Answers what to call when something does. */
function endWhenIdle(socket: WebSocket): () => void {
  const timer = setTimeout(() => socket.terminate(), IDLE_MS)
  socket.once('close', () => clearTimeout(timer))
  return () => timer.refresh()
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
  stream.on('output', (name: OutputName, bytes: Buffer) => {
    if (!wanted[name]) {
      stream.taken(name, bytes.length)
      return
    }
    // The credit comes back when the bytes have left this process: a caller that does not read stops the sender.
    socket.send(message(CHANNELS[name], bytes), (error) => {
      moved()
      if (error === undefined || error === null) stream.taken(name, bytes.length)
    })
  })
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
      if (socket.readyState === socket.OPEN) finish(socket, statusOf(end))
      resolve({ end, reason })
    })
  })
}
