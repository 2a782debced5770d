/** Answers that come line by line, and are gone on with when the agent is restarted. */
import { ProblemError, Unreachable } from './client.ts'

const LINE_CHARACTERS_MAX = 1 << 20
/** Between two tries to go on with an answer whose agent has gone, and how many in a row. */
export const AGAIN_MS = 500
export const AGAIN_MAX = 120

/** Whole lines alone: what was cut off in its middle comes again. @throws Error for a line that is too long */
export async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let held = ''
  for await (const chunk of stream) {
    const found = (held + chunk.toString('latin1')).split('\n')
    held = found.pop() ?? ''
    if (held.length > LINE_CHARACTERS_MAX) throw new Error('a line of the answer is too long')
    // Split as bytes: a character may come in two chunks.
    for (const line of found) yield Buffer.from(line, 'latin1').toString('utf8')
  }
}

/** @throws what is no agent that has gone away for a while */
export const passing = (error: unknown): null => {
  const away = error instanceof ProblemError && error.code === 'SHUTTING_DOWN'
  const cut = error instanceof Error && !(error instanceof ProblemError) && 'code' in error
  if (away || cut || error instanceof Unreachable) return null
  throw error
}
