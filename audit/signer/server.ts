/** The signer's socket: who may connect is decided by the socket's mode and group alone. */
import { chmodSync, chownSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { Keeper } from './keeper.ts'
import { BadFrame, FrameReader, readRequest, writeAnswer } from './protocol.ts'

const CONNECTIONS_MAX = 8

function serve(socket: Socket, keeper: Keeper): void {
  const reader = new FrameReader()
  socket.on('data', (chunk: Buffer) => {
    try {
      for (const value of reader.push(chunk))
        socket.write(writeAnswer(keeper.answer(readRequest(value))))
    } catch (error) {
      // A state that could not be written is not answered: the next start reads what is on disk.
      if (error instanceof BadFrame) {
        socket.end(writeAnswer({ ok: false, code: error.code, message: error.message }))
        return
      }
      socket.destroy()
      throw error
    }
  })
  socket.on('error', () => {
    socket.destroy()
  })
}

/**
 * Listens on a unix socket of mode 0660; `gid` is the group that may connect (null: the process's).
 * A stale socket file is replaced, which only the signer's own user can do.
 */
export function listen(keeper: Keeper, file: string, gid: number | null): Promise<Server> {
  rmSync(file, { force: true })
  const server = createServer((socket) => {
    serve(socket, keeper)
  })
  server.maxConnections = CONNECTIONS_MAX
  // Nobody may connect in the moment before the mode is set.
  const umask = process.umask(0o177)
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(file, () => {
      process.umask(umask)
      if (gid !== null) chownSync(file, -1, gid)
      chmodSync(file, 0o660)
      resolve(server)
    })
  })
}
