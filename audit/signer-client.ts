/** The log's end of the signer's socket. */
import { connect, type Socket } from 'node:net'
import type { Canonical } from '../policy/canonical.ts'
import {
  FrameReader,
  readAnswer,
  type SignerAnswer,
  type SignerRequest,
  writeRequest,
} from './signer/protocol.ts'

const ANSWER_MS_MAX = 10_000

/** The signer refused: what it was asked to sign does not extend what it signed last. */
export class SignerRefused extends Error {
  override readonly name = 'SignerRefused'
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** What the signer signed last. */
export type Signed = Extract<SignerAnswer, { ok: true }>

interface Waiting {
  readonly resolve: (value: Canonical) => void
  readonly reject: (error: Error) => void
}

export class SignerClient {
  readonly path: string
  #socket: Socket | null = null
  #waiting: Waiting[] = []

  constructor(path: string) {
    this.path = path
  }

  /**
   * One request, one answer; connects when there is no connection.
   * @throws SignerRefused, or the error of the socket
   */
  async ask(request: SignerRequest): Promise<Signed> {
    const answer = readAnswer(await this.#exchange(writeRequest(request)))
    if (answer.ok) return answer
    throw new SignerRefused(answer.code, answer.message)
  }

  #exchange(frame: Buffer): Promise<Canonical> {
    const socket = (this.#socket ??= this.#connect())
    return new Promise<Canonical>((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      socket.ref()
      socket.write(frame)
      socket.setTimeout(ANSWER_MS_MAX)
    })
  }

  #connect(): Socket {
    const reader = new FrameReader()
    const socket = connect(this.path)
    const fail = (error: Error): void => {
      socket.destroy()
      if (this.#socket !== socket) return
      this.#socket = null
      for (const waiting of this.#waiting.splice(0)) waiting.reject(error)
    }
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const value of reader.push(chunk)) this.#waiting.shift()?.resolve(value)
      } catch (error) {
        fail(error instanceof Error ? error : new Error(String(error)))
      }
      if (this.#waiting.length > 0) return
      socket.setTimeout(0)
      // An idle connection must not keep the process alive.
      socket.unref()
    })
    socket.on('timeout', () => {
      fail(Object.assign(new Error('the signer did not answer'), { code: 'ETIMEDOUT' }))
    })
    socket.on('error', fail)
    socket.on('close', () => {
      fail(Object.assign(new Error('the signer closed the connection'), { code: 'ECONNRESET' }))
    })
    return socket
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = null
  }
}
