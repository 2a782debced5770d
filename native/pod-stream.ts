/**
 * The agent's end of a pod stream (docs/formats.md section 7): frames to and from the VMM.
 *
 * The VMM may have been taken over by its guest: every frame is checked, the buffer holds one frame
 * at most, and the first thing that does not fit ends the stream with POD_STREAM_PROTOCOL.
 */
import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'

const HEADER_BYTES = 8
export const FRAME_PAYLOAD_MAX = 65_536
/** The longest ERROR text, and so the longest payload the VMM may send: u16 code + text. */
const INCOMING_PAYLOAD_MAX = 2 + 1024
/** STDIN that waits for credit; above it the writer is told to wait. */
const WAITING_BYTES_MAX = 1 << 20
/** docs/formats.md section 7: no window ever holds more. */
const CREDIT_BYTES_MAX = 65_536

const kinds = {
  stdin: 3,
  stdinEof: 4,
  signal: 5,
  stop: 7,
  started: 66,
  exit: 69,
  error: 70,
  credit: 71,
} as const

export type PodEvent =
  | { readonly kind: 'started'; readonly guestPid: number }
  | { readonly kind: 'exit'; readonly how: 'code' | 'signal' | 'oom'; readonly value: number }
  | { readonly kind: 'error'; readonly code: number; readonly text: string }
  /** The app took so much of its standard input. */
  | { readonly kind: 'credit'; readonly bytes: number }

export class PodStreamError extends Error {
  override readonly name = 'PodStreamError'
  readonly code = 'POD_STREAM_PROTOCOL'
}

const exitWays = ['code', 'signal', 'oom'] as const

/** Printable ASCII only: the text comes from a guest and ends up in terminals. */
const printable = (bytes: Buffer): string => bytes.toString('latin1').replace(/[^ -~]/gu, '?')

function readEvent(kind: number, payload: Buffer): PodEvent {
  if (kind === kinds.started && payload.length === 4) {
    return { kind: 'started', guestPid: payload.readUInt32LE(0) }
  }
  if (kind === kinds.credit && payload.length === 4) {
    return { kind: 'credit', bytes: payload.readUInt32LE(0) }
  }
  if (kind === kinds.exit && payload.length === 5) {
    const how = exitWays[payload.readUInt8(0)]
    if (how !== undefined) return { kind: 'exit', how, value: payload.readInt32LE(1) }
  }
  if (kind === kinds.error && payload.length >= 2) {
    return { kind: 'error', code: payload.readUInt16LE(0), text: printable(payload.subarray(2)) }
  }
  throw new PodStreamError(`a frame of kind ${kind} with ${payload.length} bytes is not for here`)
}

/** Cuts a byte stream into events. Holds less than one frame between calls. */
export class FrameReader {
  #held: Buffer = Buffer.alloc(0)

  /** @throws PodStreamError */
  push(bytes: Buffer): readonly PodEvent[] {
    let rest = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes])
    const events: PodEvent[] = []
    while (rest.length >= HEADER_BYTES) {
      const length = rest.readUInt32LE(4)
      if (length > INCOMING_PAYLOAD_MAX || rest.readUInt8(1) !== 0 || rest.readUInt16LE(2) !== 0) {
        throw new PodStreamError('a frame header from the VMM is not one')
      }
      if (rest.length < HEADER_BYTES + length) break
      events.push(readEvent(rest.readUInt8(0), rest.subarray(HEADER_BYTES, HEADER_BYTES + length)))
      rest = rest.subarray(HEADER_BYTES + length)
    }
    this.#held = Buffer.from(rest)
    return events
  }
}

function frame(kind: number, payload: Buffer): Buffer {
  if (payload.length > FRAME_PAYLOAD_MAX) throw new RangeError('a frame is at most 65536 bytes')
  const bytes = Buffer.alloc(HEADER_BYTES + payload.length)
  bytes.writeUInt8(kind, 0)
  bytes.writeUInt32LE(payload.length, 4)
  payload.copy(bytes, HEADER_BYTES)
  return bytes
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value, 0)
  return bytes
}

interface PodStreamEvents {
  /** What the guest says of its app, in the VMM's words. */
  event: [PodEvent]
  /** Nothing waits; more standard input may be given. */
  drain: []
  /** The stream is over; with the reason when it did not end by itself. */
  close: [PodStreamError | undefined]
}

/** One pod stream over a connected socket. Give it the descriptor; it owns it from then on. */
export class PodStream extends EventEmitter<PodStreamEvents> {
  readonly #socket: Socket
  readonly #reader = new FrameReader()
  #failure: PodStreamError | undefined
  #waiting: Buffer = Buffer.alloc(0)
  #credit = 0
  #ended = false
  #eofSent = false

  constructor(fd: number) {
    super()
    this.#socket = new Socket({ fd, readable: true, writable: true })
    this.#socket.on('data', (bytes: Buffer) => {
      this.#take(bytes)
    })
    this.#socket.on('error', () => undefined) // 'close' follows, and says the same
    this.#socket.on('close', () => {
      this.emit('close', this.#failure)
    })
  }

  #take(bytes: Buffer): void {
    try {
      for (const event of this.#reader.push(bytes)) {
        if (event.kind === 'credit') this.#grant(event.bytes)
        else this.emit('event', event)
      }
    } catch (cause) {
      if (!(cause instanceof PodStreamError)) throw cause
      this.#failure = cause
      this.#socket.destroy()
    }
  }

  /**
   * Takes standard input; it leaves as the app takes it. False means: wait for 'drain' before giving
   * more, or it is held here.
   */
  stdin(bytes: Buffer): boolean {
    this.#waiting = Buffer.concat([this.#waiting, bytes])
    this.#flush()
    return this.#waiting.length < WAITING_BYTES_MAX
  }

  /** No more standard input, after what was given. */
  stdinEof(): void {
    this.#ended = true
    this.#flush()
  }

  /** Sends what the credit allows: the VMM takes more for an attack and ends the stream. */
  #flush(): void {
    while (this.#credit > 0 && this.#waiting.length > 0) {
      const part = this.#waiting.subarray(0, Math.min(this.#credit, FRAME_PAYLOAD_MAX))
      this.#socket.write(frame(kinds.stdin, part))
      this.#credit -= part.length
      this.#waiting = this.#waiting.subarray(part.length)
    }
    if (this.#waiting.length > 0) return
    this.emit('drain')
    if (!this.#ended || this.#eofSent) return
    this.#eofSent = true
    this.#socket.write(frame(kinds.stdinEof, Buffer.alloc(0)))
  }

  #grant(bytes: number): void {
    if (this.#credit + bytes > CREDIT_BYTES_MAX) {
      throw new PodStreamError('the guest granted more standard input than a window holds')
    }
    this.#credit += bytes
    this.#flush()
  }

  signal(number: number): void {
    this.#socket.write(frame(kinds.signal, u32(number)))
  }

  /** TERM now, KILL after `timeoutMs`; both by the guest's init. */
  stop(timeoutMs: number): void {
    this.#socket.write(frame(kinds.stop, u32(timeoutMs)))
  }

  /** Whether 'close' was emitted, or is about to be. */
  get closed(): boolean {
    return this.#socket.destroyed
  }

  close(): void {
    this.#socket.destroy()
  }
}
