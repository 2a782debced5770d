/** Standard input of the command line as that of a pod's program: a pipe or a file, to its end. */
import { UsageError } from './arguments.ts'
import { ProblemError } from './client.ts'
import { type GlobalOptions, podPath } from './context.ts'
import { listen, send } from './copy-session.ts'
import { openWebSocket } from './web-socket.ts'

/** @throws UsageError where it is a terminal: a pod has none at its other end */
export function refuseTerminal(): void {
  if (process.stdin.isTTY) {
    throw new UsageError(
      '-i passes on a pipe or a file; for a terminal there is `casemate exec -it`',
    )
  }
}

/** What is on its way to a pod. */
export interface Passing {
  /** The pod has ended: nothing more is read. */
  readonly stop: () => void
}

/**
 * Begins to pass standard input on.
 * @throws ProblemError, also where somebody else does so, or it has ended before
 */
export async function passInput(options: GlobalOptions, pod: string): Promise<Passing> {
  const socket = await openWebSocket(options, `${podPath(options, pod)}/input`)
  listen(socket)
  // Whoever feeds this may have nothing more to say for long.
  socket.once('close', () => process.stdin.destroy())
  send(socket, process.stdin).catch((error: unknown) => {
    // Its end was the reason; nobody is there to be told.
    if (socket.readyState === socket.OPEN) socket.emit('error', error)
  })
  return { stop: () => socket.close() }
}

/** The same for a pod that was started just now, and may have ended without a look at its input. */
export async function passInputIfRunning(options: GlobalOptions, pod: string): Promise<Passing> {
  try {
    return await passInput(options, pod)
  } catch (error) {
    if (!(error instanceof ProblemError) || error.code !== 'POD_STATE_CONFLICT') throw error
    return { stop: () => undefined }
  }
}
