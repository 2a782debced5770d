/**
 * The signer's socket. It answers the agent's user and root: what the kernel says of the other
 * process counts, so that a mistake with modes or groups gives nobody a signature.
 */
import { chmodSync, chownSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { Canonical } from '../../policy/canonical.ts'
import { type Keeper, StateNotWritten } from './keeper.ts'
import { BadFrame, FrameReader, readRequest, writeAnswer } from './protocol.ts'

const CONNECTIONS_MAX = 8
/** How long answers may lie unread before the connection is closed. */
const UNREAD_MS_MAX = 5000
const ROOT = 0

/** Who may ask. */
export interface Access {
  /** The user beside root that is answered. */
  readonly uid: number
  /** The user at the other end. @throws when it cannot be told, which is a no */
  readonly uidOf: (socket: Socket) => number
  /** The group that may open the socket; null: the process's own. */
  readonly gid: number | null
}

function isWelcome(socket: Socket, { uid, uidOf }: Access): boolean {
  let who: number | null = null
  try {
    who = uidOf(socket)
  } catch {
    // Gone before it was looked at, or of a namespace from which nobody may ask.
  }
  if (who === uid || who === ROOT) return true
  process.stderr.write(`casemate-signer: closed a connection of user id ${who ?? 'unknown'}\n`)
  return false
}

function serve(socket: Socket, keeper: Keeper): void {
  const reader = new FrameReader()
  /** Requests of what was read last: nothing more is read before they are answered. */
  const waiting: Canonical[] = []
  const answerWaiting = (): void => {
    while (waiting.length > 0 && !socket.writableNeedDrain && !socket.destroyed) {
      socket.write(writeAnswer(keeper.answer(readRequest(waiting.shift() ?? null))))
    }
    if (socket.writableNeedDrain) socket.pause().setTimeout(UNREAD_MS_MAX)
    else socket.resume().setTimeout(0)
  }
  const take = (step: () => void): void => {
    try {
      step()
    } catch (error) {
      if (!(error instanceof BadFrame)) {
        socket.destroy()
        // What may be half in place is read anew by the next start; a full disk ends nobody.
        if (!(error instanceof StateNotWritten)) throw error
        process.stderr.write(`casemate-signer: ${error.message}\n`)
        return
      }
      waiting.length = 0
      socket.removeAllListeners('data').resume().setTimeout(UNREAD_MS_MAX)
      socket.end(writeAnswer({ ok: false, code: error.code, message: error.message }))
    }
  }
  socket.on('data', (chunk: Buffer) => {
    take(() => {
      waiting.push(...reader.push(chunk))
      answerWaiting()
    })
  })
  socket.on('drain', () => {
    take(answerWaiting)
  })
  socket.on('timeout', () => socket.destroy())
  socket.on('error', () => socket.destroy())
}

/**
 * Listens on a unix socket of mode 0660. A stale socket file is replaced, which only the signer's
 * own user can do.
 */
export function listen(keeper: Keeper, file: string, access: Access): Promise<Server> {
  rmSync(file, { force: true })
  const server = createServer((socket) => {
    if (isWelcome(socket, access)) serve(socket, keeper)
    else socket.destroy()
  })
  server.maxConnections = CONNECTIONS_MAX
  // Nobody may connect in the moment before the mode is set.
  const umask = process.umask(0o177)
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(file, () => {
      process.umask(umask)
      if (access.gid !== null) chownSync(file, -1, access.gid)
      chmodSync(file, 0o660)
      resolve(server)
    })
  })
}
