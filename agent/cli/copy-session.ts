/** The command line's end of a copy: an archive on the channels of a session, as fast as the slower end takes it. */
import { PassThrough, type Readable } from 'node:stream'
import type { WebSocket } from 'ws'
import { CHANNELS, message } from '../exec-channels.ts'
import { exitCodeIn } from './exec.ts'
import { EXIT } from './exit-codes.ts'
import { plain, say } from './output.ts'

/** Bytes under way; above it nothing more is read. */
const UNSENT_BYTES_MAX = 1 << 18
/** What our code in the pod says is a few lines; a pod says what it likes. */
const WORDS_BYTES_MAX = 1 << 20

export interface CopySession {
  /** The archive that comes out. */
  readonly archive: Readable
  /** How it ended: 0, or 1 where something was left out or nothing was done, which was said. */
  readonly code: Promise<number>
}

/** Listens to a socket that is paused. */
export function listen(socket: WebSocket): CopySession {
  const archive = new PassThrough()
  let words = 0
  let code: number | null = null
  socket.on('message', (data: Buffer) => {
    const [channel, bytes] = [data[0], data.subarray(1)]
    if (channel === CHANNELS.error) {
      const told = exitCodeIn(bytes.toString())
      // There is no program whose codes these could be.
      code = told === EXIT.notRun ? EXIT.error : told
    }
    if (channel === CHANNELS.stderr) {
      words += bytes.length
      if (words <= WORDS_BYTES_MAX) process.stderr.write(plain(bytes.toString()))
    } else if (channel === CHANNELS.stdout && !archive.write(bytes)) {
      socket.pause()
      archive.once('drain', () => socket.resume())
    }
  })
  // Who stops reading ends the copy.
  archive.once('close', () => socket.close())
  const done = new Promise<number>((resolve) => {
    socket.on('error', (error) => say(`casemate: ${plain(error.message)}`))
    socket.once('close', () => {
      if (code === null) say('casemate: the connection ended before the copy did')
      archive.end()
      resolve(code ?? EXIT.error)
    })
  })
  socket.resume()
  return { archive, code: done }
}

/** Sends an archive to its end, or to that of the session. */
export async function send(socket: WebSocket, archive: AsyncIterable<Buffer>): Promise<void> {
  for await (const bytes of archive) {
    if (socket.readyState !== socket.OPEN) break
    const left = new Promise<void>((resolve) => {
      socket.send(message(CHANNELS.stdin, bytes), () => resolve())
    })
    if (socket.bufferedAmount >= UNSENT_BYTES_MAX) await left
  }
  if (socket.readyState === socket.OPEN) {
    socket.send(message(CHANNELS.close, Buffer.from([CHANNELS.stdin])))
  }
}
