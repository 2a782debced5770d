/**
 * Which requests of which access tokens are being answered: waits, logs, events and sessions may be for hours, and a token
 * that is revoked or expires meanwhile, or whose tenant is deleted, is worth nothing from then on.
 */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Caller } from '../tenants/index.ts'

type Token = Pick<Extract<Caller, { kind: 'tenant' }>, 'jti' | 'expiresMs'>

export class LiveTokens {
  readonly #now: () => number
  readonly #sockets = new Map<string, Map<ServerResponse, Socket>>()

  /** @param now ms since 1970 */
  constructor(now: () => number) {
    this.#now = now
  }

  /** A request with that token is under way until its answer has closed, or the token's time is over. */
  begin({ jti, expiresMs }: Token, socket: Socket, answer: ServerResponse): void {
    if (answer.closed) return
    const expiry = setTimeout(() => socket.destroy(), Math.max(expiresMs - this.#now(), 0)).unref()
    const those = this.#sockets.get(jti) ?? new Map<ServerResponse, Socket>()
    this.#sockets.set(jti, those.set(answer, socket))
    answer.once('close', () => {
      clearTimeout(expiry)
      those.delete(answer)
      if (those.size === 0 && this.#sockets.get(jti) === those) this.#sockets.delete(jti)
    })
  }

  /** Ends all that are under way with the token, whatever they are. */
  end(jti: string): void {
    for (const socket of this.#sockets.get(jti)?.values() ?? []) socket.destroy()
  }
}
