/**
 * Frames of the pod stream, docs/formats.md section 7. The VMM may have been taken over by its guest: a header
 * that is none ends the stream before the bytes it announces are kept.
 */

import { HEALTH_PAYLOAD_MAX } from './pod-health.ts'

export const HEADER_BYTES = 8
export const FRAME_PAYLOAD_MAX = 65_536
/** The longest ERROR text, and so the longest payload beside output and health: u16 code + text. */
const WORDS_MAX = 2 + 1024

/** Number of the first app of a pod that has several; an only app has 0 (native/wire/src/apps.rs). */
const FIRST_APP = 65_528

/** The place of the app whose number it is, among several; null: it is no app's. */
export const placeOfApp = (number: number): number | null =>
  number < FIRST_APP ? null : number - FIRST_APP

/** Numbers of processes beside apps are below those of apps. */
export const SESSION_NUMBER_MAX: number = FIRST_APP - 1

export const KINDS = {
  stdin: 3,
  stdinEof: 4,
  signal: 5,
  credit: 6,
  stop: 7,
  window: 10,
  close: 11,
  admit: 12,
} as const

export const TOLD = {
  started: 66,
  stdout: 67,
  stderr: 68,
  exit: 69,
  error: 70,
  credit: 71,
  health: 73,
} as const

export class PodStreamError extends Error {
  override readonly name = 'PodStreamError'
  readonly code = 'POD_STREAM_PROTOCOL'
}

export interface PodFrame {
  readonly kind: number
  /** 0 is the pod with its only app. */
  readonly session: number
  readonly payload: Buffer
}

/** What is said of the app, and of a process beside it. */
export type ProcessEvent =
  | { readonly kind: 'started'; readonly guestPid: number }
  | { readonly kind: 'exit'; readonly how: 'code' | 'signal' | 'oom'; readonly value: number }
  | { readonly kind: 'error'; readonly code: number; readonly text: string }
  /** It took so much of its standard input. */
  | { readonly kind: 'credit'; readonly bytes: number }

const exitWays = ['code', 'signal', 'oom'] as const

/** Printable ASCII only: the text comes from a guest and ends up in terminals. */
const printable = (bytes: Buffer): string => bytes.toString('latin1').replace(/[^ -~]/gu, '?')

/** @throws PodStreamError */
export function readEvent({ kind, payload }: PodFrame): ProcessEvent {
  if (kind === TOLD.started && payload.length === 4) {
    return { kind: 'started', guestPid: payload.readUInt32LE(0) }
  }
  if (kind === TOLD.credit && payload.length === 4) {
    return { kind: 'credit', bytes: payload.readUInt32LE(0) }
  }
  if (kind === TOLD.exit && payload.length === 5) {
    const how = exitWays[payload.readUInt8(0)]
    if (how !== undefined) return { kind: 'exit', how, value: payload.readInt32LE(1) }
  }
  if (kind === TOLD.error && payload.length >= 2) {
    return { kind: 'error', code: payload.readUInt16LE(0), text: printable(payload.subarray(2)) }
  }
  throw new PodStreamError(`a frame of kind ${kind} with ${payload.length} bytes is not for here`)
}

/** Most bytes of a payload. */
function mostOf(kind: number, session: number): number {
  if (isOutput(kind, session)) return FRAME_PAYLOAD_MAX
  const isApp = session === 0 || placeOfApp(session) !== null
  return kind === TOLD.health && isApp ? HEALTH_PAYLOAD_MAX : WORDS_MAX
}

/** Output of apps is in the pod's log; that of a process beside them comes here. */
const isOutput = (kind: number, session: number): boolean =>
  session !== 0 && placeOfApp(session) === null && (kind === TOLD.stdout || kind === TOLD.stderr)

/** Cuts a byte stream into frames. Holds less than one frame between calls. */
export class PodFrameReader {
  #held: Buffer = Buffer.alloc(0)

  /** @throws PodStreamError */
  push(bytes: Buffer): readonly PodFrame[] {
    let rest = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes])
    const frames: PodFrame[] = []
    while (rest.length >= HEADER_BYTES) {
      const [kind, session] = [rest.readUInt8(0), rest.readUInt16LE(2)]
      const length = rest.readUInt32LE(4)
      const most = mostOf(kind, session)
      // Output of no bytes takes no credit: there could be any number of it.
      const isEmpty = length === 0 && (kind === TOLD.stdout || kind === TOLD.stderr)
      if (length > most || isEmpty || rest.readUInt8(1) !== 0) {
        throw new PodStreamError('a frame header from the VMM is not one')
      }
      if (rest.length < HEADER_BYTES + length) break
      frames.push({ kind, session, payload: rest.subarray(HEADER_BYTES, HEADER_BYTES + length) })
      rest = rest.subarray(HEADER_BYTES + length)
    }
    this.#held = Buffer.from(rest)
    return frames
  }
}

const ADMIT_PAYLOAD_MAX = 163_840

export function frame(kind: number, payload: Buffer, session = 0): Buffer {
  const most = kind === KINDS.admit ? ADMIT_PAYLOAD_MAX : FRAME_PAYLOAD_MAX
  if (payload.length > most)
    throw new RangeError(`a frame of kind ${kind} is at most ${most} bytes`)
  const bytes = Buffer.alloc(HEADER_BYTES + payload.length)
  bytes.writeUInt8(kind, 0)
  bytes.writeUInt16LE(session, 2)
  bytes.writeUInt32LE(payload.length, 4)
  payload.copy(bytes, HEADER_BYTES)
  return bytes
}

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value, 0)
  return bytes
}
