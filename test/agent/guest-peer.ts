/**
 * The other end of a pod stream: VMM and guest, for tests of what the agent makes of them. It takes frames apart for
 * real, and holds the agent to the rules of docs/formats.md section 7; what it says is what the test told it to say.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { exchange } from '../../native/addon.ts'
import { KINDS, TOLD, u32 } from '../../native/pod-frames.ts'
import { type SpawnClient, spawnClient } from '../../native/spawn-client.ts'
import { frameOf } from '../native/fd-answer.ts'
import { temporary } from '../native/temporary.ts'

const WINDOW = 16_384

/** A process beside the app, from the guest's side. */
export class GuestSession {
  readonly number: number
  readonly ticket: string
  readonly record: Record<string, unknown>
  readonly request: Record<string, unknown>
  /** Everything typed so far. */
  typed = ''
  ended = false
  closed = false
  size: readonly [rows: number, columns: number] | null = null
  /** What may still be said: standard output, standard error. */
  readonly credit: [number, number] = [0, 0]
  /** All credit that was ever granted for standard output. */
  granted = 0
  readonly #peer: GuestPeer

  constructor(peer: GuestPeer, number: number, admit: Buffer) {
    const [ticket, record] = [admit.readUInt32LE(0), admit.readUInt32LE(4)]
    this.#peer = peer
    this.number = number
    this.ticket = admit.toString('utf8', 8, 8 + ticket)
    this.record = JSON.parse(
      admit.toString('utf8', 8 + ticket, 8 + ticket + record),
    ) as typeof this.record
    this.request = JSON.parse(admit.toString('utf8', 8 + ticket + record)) as typeof this.request
  }

  say(kind: number, payload: Buffer): void {
    this.#peer.say(this.number, kind, payload)
  }

  start(): void {
    this.say(TOLD.started, u32(9))
    this.say(TOLD.credit, u32(65_536))
  }

  /** As far as there is credit; answers what is left. */
  print(text: string | Buffer, stream: 0 | 1 = 0): Buffer {
    const bytes = Buffer.from(text)
    const now = bytes.subarray(0, this.credit[stream])
    this.credit[stream] -= now.length
    if (now.length > 0) this.say(stream === 0 ? TOLD.stdout : TOLD.stderr, now)
    return bytes.subarray(now.length)
  }

  exit(how: 0 | 1 | 2, value: number): void {
    this.#peer.sessions.delete(this.number)
    this.say(TOLD.exit, Buffer.from([how, value, 0, 0, 0]))
  }

  fail(code: number, text: string): void {
    this.#peer.sessions.delete(this.number)
    this.say(TOLD.error, Buffer.concat([Buffer.from([code, 0]), Buffer.from(text)]))
  }

  hear(kind: number, payload: Buffer): void {
    if (kind === KINDS.stdin) {
      this.typed += payload.toString()
      this.say(TOLD.credit, u32(payload.length))
    } else if (kind === KINDS.stdinEof) this.ended = true
    else if (kind === KINDS.close) this.closed = true
    else if (kind === KINDS.window) this.size = [payload.readUInt16LE(0), payload.readUInt16LE(2)]
    else if (kind === KINDS.credit) {
      const stream = payload.readUInt8(0) === 1 ? 0 : 1
      this.credit[stream] += payload.readUInt32LE(1)
      if (stream === 0) this.granted += payload.readUInt32LE(1)
      assert.ok(this.credit[stream] <= WINDOW, 'more credit than the VMM has room for')
    } else assert.fail(`a frame of kind ${kind} for a session`)
  }
}

export class GuestPeer {
  readonly sessions: Map<number, GuestSession> = new Map()
  /** Called with each new session, and again for each frame of it. */
  heard: (session: GuestSession, isNew: boolean) => void | Promise<void> = () => undefined
  /** What was wrong with a frame, or with a test's own function. */
  readonly wrong: unknown[] = []
  #socket: Socket | null = null

  /** Takes the other end. */
  attach(socket: Socket): void {
    this.#socket = socket
    this.sessions.clear()
    let held = Buffer.alloc(0)
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => {
      held = Buffer.concat([held, chunk])
      while (held.length >= 8 && held.length >= 8 + held.readUInt32LE(4)) {
        const length = held.readUInt32LE(4)
        this.#take(held.readUInt8(0), held.readUInt16LE(2), held.subarray(8, 8 + length))
        held = held.subarray(8 + length)
      }
    })
  }

  #take(kind: number, number: number, payload: Buffer): void {
    if (number === 0) return
    const call = async (session: GuestSession, isNew: boolean): Promise<void> => {
      await this.heard(session, isNew)
    }
    const report = (error: unknown): void => void this.wrong.push(error)
    try {
      if (kind === KINDS.admit) {
        assert.equal(this.sessions.has(number), false, 'a number that is taken')
        const session = new GuestSession(this, number, payload)
        this.sessions.set(number, session)
        call(session, true).catch(report)
        return
      }
      const session = this.sessions.get(number)
      session?.hear(kind, payload)
      if (session !== undefined) call(session, false).catch(report)
    } catch (error) {
      report(error)
    }
  }

  say(session: number, kind: number, payload: Buffer): void {
    const header = Buffer.alloc(8)
    header.writeUInt8(kind, 0)
    header.writeUInt16LE(session, 2)
    header.writeUInt32LE(payload.length, 4)
    this.#socket?.write(Buffer.concat([header, payload]))
  }

  /** The pod's end. */
  hangUp(): void {
    this.#socket?.destroy()
  }
}

/** Client of a spawn whose pods are `guest`, however often they are adopted. */
export function withGuest(t: TestContext, guest: GuestPeer): (socket: string) => SpawnClient {
  const place = path.join(temporary(t), 'pod.sock')
  const server = createServer((socket) => {
    socket.once('data', () => {
      socket.write(frameOf({ ok: true }))
      guest.attach(socket)
    })
  }).listen(place)
  t.after(() => {
    guest.hangUp()
    server.close()
  })
  return (socket) => ({
    ...spawnClient(socket),
    adopt: async () => {
      if (!server.listening) await once(server, 'listening')
      const { connection } = await exchange(place, frameOf({ op: 'adopt' }), [], {
        answerMax: 64,
        fdsMax: 0,
        timeoutMs: 10_000,
        keepOpen: true,
      })
      return { pid: 4711, stream: connection }
    },
  })
}
