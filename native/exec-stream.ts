/**
 * A process beside a pod's app: a session of its pod stream. Output comes by our credit, so who does not read holds
 * up this process and nothing else.
 */
import { EventEmitter } from 'node:events'
import type { TerminalSize } from './exec-request.ts'
import {
  KINDS,
  type PodFrame,
  PodStreamError,
  type ProcessEvent,
  readEvent,
  TOLD,
  u32,
} from './pod-frames.ts'
import { PodInput } from './pod-input.ts'

/** `SESSION_WINDOW_MAX` of native/wire/src/credit.rs: what the VMM has room for. */
export const WINDOW_BYTES = 16_384
/** Half a window at a time, so that output in single bytes is not answered one by one. */
const RENEW_BYTES = WINDOW_BYTES / 2

export type OutputName = 'stdout' | 'stderr'
const NUMBERS: Readonly<Record<OutputName, number>> = { stdout: 1, stderr: 2 }

/** How it came to its end, in the guest's words or, for a session that was cut off, in none. */
export type ExecEnd =
  | Extract<ProcessEvent, { kind: 'exit' | 'error' }>
  | { readonly kind: 'cut'; readonly why: string }

interface ExecStreamEvents {
  started: []
  output: [OutputName, Buffer]
  /** Nothing waits; more standard input may be given. */
  drain: []
  /** The last event. */
  end: [ExecEnd]
}

class Window {
  #left = WINDOW_BYTES
  #taken = 0

  /** @throws PodStreamError */
  spend(bytes: number): void {
    if (bytes > this.#left) throw new PodStreamError('a process sent more output than it may')
    this.#left -= bytes
  }

  /** Bytes to grant anew; 0 while they are few. */
  renew(bytes: number): number {
    this.#taken += bytes
    if (this.#taken < RENEW_BYTES) return 0
    const granted = this.#taken
    this.#taken = 0
    this.#left += granted
    return granted
  }
}

export class ExecStream extends EventEmitter<ExecStreamEvents> {
  readonly #send: (kind: number, payload: Buffer) => boolean
  readonly #windows = { stdout: new Window(), stderr: new Window() }
  readonly #input: PodInput
  #closed = false
  #over = false
  /** The VMM has not read what was sent; a size that comes meanwhile takes the place of the one before. */
  #full = false
  #size: TerminalSize | null = null

  /** @param send of this session, to the VMM; false: it holds up, and drained() is called when it goes on */
  constructor(send: (kind: number, payload: Buffer) => boolean) {
    super()
    this.#send = (kind, payload) => this.#over || send(kind, payload)
    this.#input = new PodInput(this.#send, () => this.emit('drain'))
  }

  /** Opens both windows; once, after the request has left. */
  open(): void {
    for (const name of ['stdout', 'stderr'] as const) this.#grant(name, WINDOW_BYTES)
  }

  #grant(name: OutputName, bytes: number): void {
    this.#send(KINDS.credit, Buffer.concat([Buffer.from([NUMBERS[name]]), u32(bytes)]))
  }

  /** Output that was passed on: the process may send as much again. */
  taken(name: OutputName, bytes: number): void {
    const granted = this.#windows[name].renew(bytes)
    if (granted > 0) this.#grant(name, granted)
  }

  /** False means: wait for 'drain' before giving more. */
  stdin(bytes: Buffer): boolean {
    return this.#input.write(bytes)
  }

  stdinEof(): void {
    this.#input.end()
  }

  /** However often, no more than one size waits: sizes need no credit, and a guest may not read. */
  resize(size: TerminalSize): void {
    this.#size = size
    this.#sendSize()
  }

  #sendSize(): void {
    if (this.#full || this.#size === null) return
    const size = Buffer.alloc(4)
    size.writeUInt16LE(this.#size.rows, 0)
    size.writeUInt16LE(this.#size.columns, 2)
    this.#size = null
    this.#full = !this.#send(KINDS.window, size)
  }

  /** What was sent has left. */
  drained(): void {
    this.#full = false
    this.#sendSize()
  }

  /** Nobody listens any more: it is hung up on, then killed; its 'end' comes all the same. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#send(KINDS.close, Buffer.alloc(0))
  }

  get over(): boolean {
    return this.#over
  }

  /** A frame of this session. @throws PodStreamError */
  hear(told: PodFrame): void {
    const { kind, payload } = told
    if (kind === TOLD.stdout || kind === TOLD.stderr) {
      const name = kind === TOLD.stdout ? 'stdout' : 'stderr'
      this.#windows[name].spend(payload.length)
      if (!this.#closed) this.emit('output', name, Buffer.from(payload))
      return
    }
    const event = readEvent(told)
    if (event.kind === 'credit') this.#input.grant(event.bytes)
    else if (event.kind === 'started') this.emit('started')
    else this.end(event)
  }

  /** It is over, by whatever was heard last. */
  end(end: ExecEnd): void {
    if (this.#over) return
    this.#over = true
    this.emit('end', end)
  }
}
