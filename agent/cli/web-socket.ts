/** The CLI's WebSocket to the agent. What the agent refuses it with is a problem, as of every other request. */
import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { MESSAGE_BYTES_MAX, PROTOCOLS } from '../exec-channels.ts'
import {
  authorizationOf,
  originOf,
  placeOf,
  problemOf,
  type Target,
  trustOf,
  Unreachable,
} from './client.ts'

const ANSWER_BYTES_MAX = 1 << 20

async function refusalIn(answer: IncomingMessage): Promise<Error> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size <= ANSWER_BYTES_MAX) chunks.push(chunk)
  }
  return problemOf(Buffer.concat(chunks).toString('utf8'), answer.statusCode ?? 0)
}

/** The socket is paused, so that nothing is lost before it is listened to. @throws ProblemError, Unreachable */
export async function openWebSocket(target: Target, path: string): Promise<WebSocket> {
  const place = placeOf(target)
  const headers = authorizationOf(target)
  const common = { headers, perMessageDeflate: false, maxPayload: MESSAGE_BYTES_MAX }
  const socket =
    place.kind === 'unix'
      ? new WebSocket(`ws+unix:${place.socket}:${path}`, [...PROTOCOLS], common)
      : new WebSocket(`wss${originOf(place.url).slice('https'.length)}${path}`, [...PROTOCOLS], {
          ...common,
          ...trustOf(place.caFile),
        })
  const where = place.kind === 'unix' ? place.socket : place.url
  return await new Promise((resolve, reject) => {
    socket.once('open', () => {
      socket.removeAllListeners('error')
      socket.pause()
      resolve(socket)
    })
    socket.once('unexpected-response', (_request, answer) => {
      refusalIn(answer).then(reject, reject)
    })
    socket.once('error', (cause) => {
      reject(new Unreachable(`the agent at ${where} does not answer (${cause.message})`, { cause }))
    })
  })
}
