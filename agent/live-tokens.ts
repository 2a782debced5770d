/**
 * Which requests of which access tokens are being answered: waits, logs, events and sessions may be for hours, and a token
 * that is revoked meanwhile is worth nothing from then on.
 */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

export class LiveTokens {
  readonly #sockets = new Map<string, Map<ServerResponse, Socket>>()

  /** A request with that token is under way until its answer has closed. @param jti of the token */
  begin(jti: string, socket: Socket, answer: ServerResponse): void {
    if (answer.closed) return
    const those = this.#sockets.get(jti) ?? new Map<ServerResponse, Socket>()
    this.#sockets.set(jti, those.set(answer, socket))
    answer.once('close', () => {
      those.delete(answer)
      if (those.size === 0 && this.#sockets.get(jti) === those) this.#sockets.delete(jti)
    })
  }

  /** Ends all that are under way with the token, whatever they are. */
  end(jti: string): void {
    for (const socket of this.#sockets.get(jti)?.values() ?? []) socket.destroy()
  }
}
