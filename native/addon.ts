/**
 * The N-API addon, typed: what Node cannot do itself (native/addon/addon.cc says why each is there).
 *
 * Errors carry `code` (the errno's name) and `syscall`, as Node's own. Every descriptor returned is
 * close-on-exec and belongs to the caller, who closes it with `closeSync`.
 */
import { createRequire } from 'node:module'
import type { Socket } from 'node:net'

/** Limits of one exchange. All are required: a limit nobody wrote down is a limit nobody has. */
export interface ExchangeOptions {
  /** The longest answer accepted, in bytes, without its length prefix. */
  readonly answerMax: number
  /** The most descriptors accepted with the answer. */
  readonly fdsMax: number
  /** For connecting, sending and receiving together. */
  readonly timeoutMs: number
  /** Leave the connection open and hand it over in `connection`. */
  readonly keepOpen: boolean
}

export interface ExchangeResult {
  readonly answer: Buffer
  readonly fds: readonly number[]
  /** -1 unless `keepOpen` was asked for. */
  readonly connection: number
}

/** Who is at the other end of a unix socket, as the kernel saw it when the connection was made. */
export interface PeerCredentials {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

interface Binding {
  readonly exchange: (
    path: string,
    request: Buffer,
    fds: readonly number[],
    options: ExchangeOptions,
  ) => Promise<ExchangeResult>
  readonly memfdSealed: (name: string, bytes: Buffer) => number
  readonly pidfdOpen: (pid: number) => number
  readonly peerCredentials: (fd: number) => PeerCredentials
  readonly openBeneath: (directory: number, path: string, flags: number, mode: number) => number
  readonly duplicate: (fd: number) => number
  readonly pipe: () => { read: number; write: number }
}

function load(): Binding {
  const require = createRequire(import.meta.url)
  const place = './addon/build/casemate.node'
  try {
    const binding: Binding = require(place)
    return binding
  } catch (cause) {
    throw new Error('the native addon is not built: run `npm run setup` in the checkout', { cause })
  }
}

const binding = load()

/**
 * Connects to the unix stream socket at `path`, sends `request` (length prefix included) with `fds`
 * on its first byte, and resolves with one answer in the form of docs/formats.md section 5.
 */
export const exchange: Binding['exchange'] = binding.exchange

/** A memfd with these bytes, sealed against every change for everybody who ever holds it. */
export const memfdSealed: Binding['memfdSealed'] = binding.memfdSealed

/** A descriptor that stands for this very process, however often its pid is used again. */
export const pidfdOpen: Binding['pidfdOpen'] = binding.pidfdOpen

/** Opens `path` below `directory`, following no link and never leaving it (openat2, RESOLVE_*). */
export const openBeneath: Binding['openBeneath'] = binding.openBeneath

export const duplicate: Binding['duplicate'] = binding.duplicate

export const pipe: Binding['pipe'] = binding.pipe

/**
 * The peer of a connected unix socket. Node has no API for it, and the descriptor sits in a private
 * member: where that is missing or closed the answer is an error, never a guess.
 */
export function peerOf(socket: Socket): PeerCredentials {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : -1
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket has no descriptor any more')
  return binding.peerCredentials(fd)
}
