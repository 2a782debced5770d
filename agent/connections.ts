/**
 * Which connection gives way when there are too many, so that nobody can hold all of them. In turn:
 *
 *   1. the one that is idle for longest. Idle is who has no request of a known caller under way: who
 *      says nothing, never ends its handshake or its headers, was answered, or is nobody we know
 *   2. of the caller who has the most requests under way, if they are many, the oldest: bodies that
 *      do not come and answers that nobody reads look like work. Waits and logs do not count, they
 *      are meant to stay, and open-answers.ts bounds them for each tenant
 *   3. the one that is idle for longest after all; where nothing else is idle, the newcomer
 *
 * 1 and 3 differ by the time that a connection is given to become somebody's. What comes newly is
 * let in first: whose it is shows later.
 */
import type { ServerResponse } from 'node:http'
import type { Server, Socket } from 'node:net'
import { type IdentityPorts, isOperator } from './identity.ts'
import { isOpenAnswer } from './routes/open-answers.ts'

/** Of one listener; the log keeps its files. */
export const CONNECTIONS_MAX = 512
/** For handshake, headers and the signature of a token, also on a busy host. */
export const IDLE_MS = 2000
/** Requests of one caller under way that stay; twice what a tenant may have being launched. */
export const UNDER_WAY_KEPT = 16

interface Connection {
  readonly key: Socket | string
  readonly socket: Socket
  /** When it came, asked last, or was answered last; of no epoch. */
  sinceMs: number
  /** What known callers are being answered, each with whose it is, the oldest first. */
  readonly answers: Map<ServerResponse, string>
}

/** By the other end's port: the socket of a TLS connection is not the one that was accepted. */
const keyOf = (socket: Socket): Socket | string =>
  socket.remotePort === undefined ? socket : `${socket.remoteAddress ?? ''} ${socket.remotePort}`

export class Connections {
  readonly #max: number
  readonly #now: () => number
  readonly #all = new Map<Socket | string, Connection>()
  /** Both in the order in which they became so: the first is idle, or busy, for longest. */
  readonly #idle = new Set<Connection>()
  readonly #busy = new Set<Connection>()

  /**
   * @param max at once
   * @param now milliseconds that never go back; of no epoch
   */
  constructor(max: number, now: () => number = () => performance.now()) {
    this.#max = max
    this.#now = now
  }

  /** A connection was accepted; another one may have to go for it, or itself. */
  add(socket: Socket): void {
    const key = keyOf(socket)
    const connection = { key, socket, sinceMs: this.#now(), answers: new Map() }
    this.#all.set(key, connection)
    this.#idle.add(connection)
    socket.once('close', () => {
      this.#drop(connection)
    })
    if (this.#all.size <= this.#max) return
    const victim = this.#victim(connection)
    // At once, and not when it has closed: many may come before that.
    this.#drop(victim)
    victim.socket.destroy()
  }

  #drop(connection: Connection): void {
    // The port may be another's by now.
    if (this.#all.get(connection.key) === connection) this.#all.delete(connection.key)
    this.#idle.delete(connection)
    this.#busy.delete(connection)
  }

  /** Somebody asks something, whoever it may be. */
  touch(socket: Socket): void {
    const connection = this.#all.get(keyOf(socket))
    if (connection?.answers.size === 0) this.#rest(connection)
  }

  /** A request of `caller`, which is known, is under way until its answer has closed. */
  begin(socket: Socket, caller: string, answer: ServerResponse): void {
    const connection = this.#all.get(keyOf(socket))
    if (connection === undefined || answer.closed) return
    const { answers } = connection
    answers.set(answer, caller)
    this.#idle.delete(connection)
    this.#busy.add(connection)
    answer.once('close', () => {
      answers.delete(answer)
      if (answers.size === 0 && this.#busy.delete(connection)) this.#rest(connection)
    })
  }

  #rest(connection: Connection): void {
    connection.sinceMs = this.#now()
    this.#idle.delete(connection)
    this.#idle.add(connection)
  }

  #victim(newcomer: Connection): Connection {
    const [longest = newcomer] = this.#idle
    if (this.#now() - longest.sinceMs >= IDLE_MS) return longest
    return this.#oldestOfTheMost() ?? longest
  }

  /** Of the caller with the most requests under way; null when nobody has so many. */
  #oldestOfTheMost(): Connection | null {
    const held = new Map<string, Connection[]>()
    for (const connection of this.#busy) {
      const { answers } = connection
      const [caller = ''] = answers.values()
      if ([...answers.keys()].some(isOpenAnswer)) continue
      const those = held.get(caller) ?? []
      those.push(connection)
      held.set(caller, those)
    }
    const [most = []] = [...held.values()].toSorted((a, b) => b.length - a.length)
    return most.length > UNDER_WAY_KEPT ? (most[0] ?? null) : null
  }
}

/** The connections among which a socket of one listener is counted. */
export type ConnectionsOf = (socket: Socket) => Connections

/**
 * Bounds the connections of a listener. Of the unix socket, which every local user can open, half
 * are for operators alone.
 */
export function countConnections(server: Server, identity: IdentityPorts): ConnectionsOf {
  const unix = identity.transport === 'unix'
  const all = new Connections(unix ? CONNECTIONS_MAX / 2 : CONNECTIONS_MAX)
  const operators = unix ? new Connections(CONNECTIONS_MAX / 2) : all
  const connectionsOf: ConnectionsOf = (socket) =>
    unix && isOperator(socket, identity) ? operators : all
  server.on('connection', (socket: Socket) => {
    connectionsOf(socket).add(socket)
  })
  return connectionsOf
}
