/** Waiting for the end of a pod, and what its end is as an exit code. */
import { type Client, ProblemError } from './client.ts'
import { type GlobalOptions, podPath } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { field, plain, say } from './output.ts'

const WAIT_S = 3600

/** How it ended, of a pod as the API shows it. */
export const exitOf = (pod: unknown): unknown =>
  typeof pod === 'object' && pod !== null ? Reflect.get(pod, 'exit') : null

/** The exit code of the foreground for how a pod ended. */
export function exitCodeOfPod(exit: unknown): number {
  const value = Number(field(exit, 'value'))
  const how = field(exit, 'how')
  const text = field(exit, 'text')
  if (how === 'code') return value
  if (how === 'signal') return 128 + value
  if (how === 'oom') return 137
  // The VMM's sentence about APP_START begins with guest-init's own code.
  if (text.startsWith('APP_NOT_FOUND')) return 127
  return text.startsWith('APP_NOT_EXECUTABLE') ? 126 : EXIT.notRun
}

/** Waits for the end, says how it was if it was no exit code, and gives the exit code of the foreground. */
export async function endOf(client: Client, options: GlobalOptions, pod: string): Promise<number> {
  const exit = exitOf(await ended(client, options, pod))
  if (field(exit, 'how') !== 'code') {
    const [cause, text] = [field(exit, 'cause'), field(exit, 'text')]
    say(`casemate: ${pod} ended: ${plain(text === '' ? cause : `${text} (${cause})`)}`)
  }
  return exitCodeOfPod(exit)
}

/** The pod when it has ended; asks again for as long as it takes. */
export async function ended(client: Client, options: GlobalOptions, pod: string): Promise<unknown> {
  for (;;) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- waiting is the point
      return await client.json({
        method: 'GET',
        path: `${podPath(options, pod)}/wait?timeout_s=${WAIT_S}`,
      })
    } catch (error) {
      if (!(error instanceof ProblemError && error.code === 'WAIT_TIMEOUT')) throw error
    }
  }
}
