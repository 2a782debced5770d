/**
 * A caller's WebSocket and the standard input of a pod's app. A caller whose pod does not read is not read from, so that
 * nothing waits here but the little that is under way.
 */
import type { WebSocket } from 'ws'
import type { PodStream } from '../native/pod-stream.ts'
import { BadMessage, failure, readMessage, SUCCESS } from './exec-channels.ts'
import { answerPings, finish } from './exec-session.ts'

const POLICY_VIOLATION = 1008

/**
 * Takes over a socket that was paused when it was made. Resolves when both are done with each other.
 * @param ended called once, as soon as the end of the caller's input is on its way to the pod, behind all of it
 */
export function feed(
  socket: WebSocket,
  stream: PodStream,
  { stopping, ended }: { readonly stopping: AbortSignal; readonly ended: () => Promise<void> },
): Promise<void> {
  let isEnd = false
  const cut = (why: string): void => {
    if (socket.readyState === socket.OPEN) finish(socket, failure('INPUT_CUT_OFF', why))
  }
  const onDrain = (): void => {
    socket.resume()
  }
  const onEnd = (): void => {
    void ended().finally(() => {
      if (socket.readyState === socket.OPEN) finish(socket, SUCCESS)
    })
  }
  const onGone = (): void => cut('The pod has ended, or its connection is being made anew.')
  const onStop = (): void => socket.terminate()
  const give = (bytes: Buffer): void => {
    if (!stream.stdin(bytes)) socket.pause()
  }
  const hear = (data: Buffer): void => {
    const said = readMessage(data)
    if (isEnd) return
    if (said.kind === 'stdin') give(Buffer.from(said.bytes))
    if (said.kind !== 'stdin-end') return
    isEnd = true
    // With the last byte, also if nobody waits for that here any more.
    stream.once('drain', onEnd)
    stream.stdinEof()
  }
  stream.on('drain', onDrain)
  stream.on('close', onGone)
  stopping.addEventListener('abort', onStop, { once: true })
  answerPings(socket)
  socket.on('message', (data: Buffer) => {
    try {
      hear(data)
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error
      socket.close(POLICY_VIOLATION, error.message)
    }
  })
  const done = new Promise<void>((resolve) => {
    socket.once('close', () => {
      stream.off('drain', onDrain)
      stream.off('close', onGone)
      stopping.removeEventListener('abort', onStop)
      resolve()
    })
    if (socket.readyState === socket.CLOSED) resolve()
  })
  socket.resume()
  if (stopping.aborted) onStop()
  else if (stream.closed) onGone()
  // What the one before has left is taken first.
  else give(Buffer.alloc(0))
  return done
}
