/** Bodies of answers, bounded and hashed as they arrive. */
import { createHash } from 'node:crypto'

import { ImageError, show } from '../errors.ts'
import { abandon, discard, type HttpAnswer, headerOf } from './http.ts'

const tooLarge = (what: string, max: number): ImageError =>
  new ImageError('IMAGE_TOO_LARGE', `The registry sends ${what} of more than ${max} bytes.`)

const interrupted = (what: string, cause: unknown): ImageError =>
  new ImageError('REGISTRY_UNAVAILABLE', `The registry stopped in the middle of ${what}.`, {
    cause,
  })

/** Chunks of a body; a connection that breaks becomes an error of ours. */
async function* chunksOf(answer: HttpAnswer, what: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) yield chunk
  } catch (error) {
    throw error instanceof ImageError ? error : interrupted(what, error)
  }
}

/** Length that the registry announces; null when it announces none. */
function announced(answer: HttpAnswer): number | null {
  const value = headerOf(answer, 'content-length')
  return value !== null && /^[0-9]{1,15}$/u.test(value) ? Number(value) : null
}

/** A whole body in memory. @throws ImageError IMAGE_TOO_LARGE, before or while reading */
export async function readBody(answer: HttpAnswer, max: number, what: string): Promise<Buffer> {
  if ((announced(answer) ?? 0) > max) {
    abandon(answer)
    throw tooLarge(what, max)
  }
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of chunksOf(answer, what)) {
    size += chunk.length
    if (size > max) throw tooLarge(what, max)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** What a blob must be. */
export interface Expected {
  readonly digest: string
  readonly size: number
}

const mismatch = (expected: Expected, how: string): ImageError =>
  new ImageError(
    'IMAGE_DIGEST_MISMATCH',
    `What the registry sends as ${expected.digest} ${how}. The image was altered; do not run it.`,
  )

/**
 * Hands a blob on chunk by chunk, checking size and digest; it throws after the last chunk when the
 * digest is another, so nothing may be done with the chunks before it returns.
 */
export async function streamBlob(
  answer: HttpAnswer,
  expected: Expected,
  take: (chunk: Buffer) => Promise<void> | void,
): Promise<void> {
  const length = announced(answer)
  if (length !== null && length !== expected.size) {
    abandon(answer)
    throw mismatch(expected, 'has another size')
  }
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of chunksOf(answer, 'a blob')) {
    size += chunk.length
    if (size > expected.size) throw mismatch(expected, 'is longer than announced')
    hash.update(chunk)
    await take(chunk)
  }
  if (size !== expected.size) throw mismatch(expected, 'is shorter than announced')
  if (`sha256:${hash.digest('hex')}` !== expected.digest)
    throw mismatch(expected, 'has another digest')
}

/** The error for a status that is not what was hoped for. */
export async function statusError(answer: HttpAnswer, what: string): Promise<ImageError> {
  await discard(answer)
  const { status } = answer
  const where = show(answer.url.host)
  if (status === 401 || status === 403) {
    return new ImageError(
      'REGISTRY_REFUSED',
      `The registry ${where} refuses ${what} (${status}). Give credentials that may read the repository.`,
    )
  }
  if (status === 404)
    return new ImageError('IMAGE_UNKNOWN', `The registry ${where} has no ${what}.`)
  if (status >= 500 || status === 429 || status === 408) {
    return new ImageError(
      'REGISTRY_UNAVAILABLE',
      `The registry ${where} fails with status ${status} for ${what}. Try again later.`,
    )
  }
  return new ImageError('REGISTRY_REFUSED', `The registry ${where} answers ${status} for ${what}.`)
}
