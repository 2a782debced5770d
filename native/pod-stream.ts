/**
 * The agent's end of a pod stream (docs/formats.md section 7): the pod's, one number for each of several apps, and a
 * session for each process beside them.
 *
 * The VMM may have been taken over by its guest: every frame is checked, the buffer holds one frame
 * at most, and the first thing that does not fit ends the stream with POD_STREAM_PROTOCOL.
 */
import { randomInt } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import { ExecStream } from './exec-stream.ts'
import {
  frame,
  KINDS,
  type PodFrame,
  PodFrameReader,
  PodStreamError,
  type ProcessEvent,
  placeOfApp,
  readEvent,
  SESSION_NUMBER_MAX,
  TOLD,
  u32,
} from './pod-frames.ts'
import { HealthAllowance, type PodHealth, readHealth } from './pod-health.ts'
import { PodInput } from './pod-input.ts'

export { FRAME_PAYLOAD_MAX, PodStreamError } from './pod-frames.ts'
export type PodEvent = ProcessEvent

/** Processes beside an app at once: `SESSIONS_MAX` of native/wire/src/sessions.rs. */
export const SESSIONS_MAX = 16
/** Most apps of a pod: `APPS_MAX` of native/ticket/src/app.rs. */
const APPS_MAX = 8

interface PodStreamEvents {
  /** What the guest says of the pod, or of its only app, in the VMM's words. */
  event: [PodEvent]
  /** The same of one of several apps, by its place in the spec; again what was said last when the stream began. */
  app: [PodEvent, place: number]
  /** What an app's health check came to, and again what it was when the stream began. */
  health: [PodHealth, place: number]
  /** Nothing waits; more standard input may be given. */
  drain: []
  /** The stream is over; with the reason when it did not end by itself. */
  close: [PodStreamError | undefined]
}

/** What admits a process beside the app. */
export interface ExecPapers {
  readonly ticket: string
  readonly record: Uint8Array
  readonly request: Uint8Array
}

/** One pod stream over a connected socket. Give it the descriptor; it owns it from then on. */
export class PodStream extends EventEmitter<PodStreamEvents> {
  readonly #socket: Socket
  readonly #reader = new PodFrameReader()
  readonly #input: PodInput
  readonly #sessions = new Map<number, ExecStream>()
  /** Anywhere: what an agent before this one left may still be ending. */
  #lastSession = randomInt(1, SESSION_NUMBER_MAX)
  readonly #allowances = Array.from({ length: APPS_MAX }, () => new HealthAllowance())
  #failure: PodStreamError | undefined

  constructor(fd: number) {
    super()
    this.#socket = new Socket({ fd, readable: true, writable: true })
    this.#input = new PodInput(
      (kind, payload) => this.#socket.write(frame(kind, payload)),
      () => this.emit('drain'),
    )
    this.#socket.on('data', (bytes: Buffer) => {
      this.#take(bytes)
    })
    this.#socket.on('drain', () => {
      for (const session of this.#sessions.values()) session.drained()
    })
    this.#socket.on('error', () => undefined) // 'close' follows, and says the same
    this.#socket.on('close', () => {
      this.#cutOff('the pod or its connection ended')
      this.emit('close', this.#failure)
    })
  }

  #take(bytes: Buffer): void {
    try {
      for (const told of this.#reader.push(bytes)) {
        const place = told.session === 0 ? 0 : placeOfApp(told.session)
        if (place === null) this.#hearSession(told)
        else if (told.kind === TOLD.health) this.#hearHealth(told, place)
        else if (told.session === 0) this.#hear(readEvent(told))
        else this.#hearApp(readEvent(told), place)
      }
    } catch (cause) {
      if (!(cause instanceof PodStreamError)) throw cause
      this.#failure = cause
      this.#socket.destroy()
    }
  }

  #hear(event: PodEvent): void {
    if (event.kind === 'credit') {
      this.#input.grant(event.bytes)
      return
    }
    if (event.kind === 'exit') this.#cutOff('the pod’s app ended')
    this.emit('event', event)
  }

  /** Nobody writes to the standard input of one of several, so what it takes is of no use. */
  #hearApp(event: PodEvent, place: number): void {
    if (event.kind !== 'credit') this.emit('app', event, place)
  }

  #hearHealth({ payload }: PodFrame, place: number): void {
    const health = readHealth(payload)
    if (health === null) throw new PodStreamError('words on health are none')
    if (this.#allowances[place]?.spend(performance.now()) !== true) {
      throw new PodStreamError('more words on health than checks can come to')
    }
    this.emit('health', health, place)
  }

  #hearSession(told: PodFrame): void {
    const session = this.#sessions.get(told.session)
    if (session === undefined) throw new PodStreamError('a frame is of a session that is not open')
    session.hear(told)
    if (session.over) this.#sessions.delete(told.session)
  }

  #cutOff(why: string): void {
    const sessions = [...this.#sessions.values()]
    this.#sessions.clear()
    for (const session of sessions) session.end({ kind: 'cut', why })
  }

  /** Processes beside the app that have not ended. */
  get sessions(): number {
    return this.#sessions.size
  }

  /** Asks for a process beside the app; the VMM looks at the papers before the guest hears of it. */
  exec({ ticket, record, request }: ExecPapers): ExecStream {
    if (this.#sessions.size >= SESSIONS_MAX) throw new RangeError('too many sessions')
    const number = this.#freeNumber()
    const session = new ExecStream(
      (kind, payload) => this.closed || this.#socket.write(frame(kind, payload, number)),
    )
    this.#sessions.set(number, session)
    const receipt = Buffer.from(ticket)
    const lengths = [u32(receipt.length), u32(record.length)]
    const admit = Buffer.concat([...lengths, receipt, record, request])
    this.#socket.write(frame(KINDS.admit, admit, number))
    session.open()
    return session
  }

  #freeNumber(): number {
    do {
      this.#lastSession = (this.#lastSession % SESSION_NUMBER_MAX) + 1
    } while (this.#sessions.has(this.#lastSession))
    return this.#lastSession
  }

  /**
   * Takes standard input; it leaves as the app takes it. False means: wait for 'drain' before giving
   * more, or it is held here.
   */
  stdin(bytes: Buffer): boolean {
    return this.#input.write(bytes)
  }

  /** Whether the end of standard input was given: there is no other. */
  get hasInputEnded(): boolean {
    return this.#input.hasEnded
  }

  /** No more standard input, after what was given. */
  stdinEof(): void {
    this.#input.end()
  }

  signal(number: number): void {
    this.#socket.write(frame(KINDS.signal, u32(number)))
  }

  /** TERM now, KILL after `timeoutMs`; both by the guest's init. */
  stop(timeoutMs: number): void {
    this.#socket.write(frame(KINDS.stop, u32(timeoutMs)))
  }

  /** Whether 'close' was emitted, or is about to be. */
  get closed(): boolean {
    return this.#socket.destroyed
  }

  close(): void {
    this.#socket.destroy()
  }
}
