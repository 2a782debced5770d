/** Runs the agent until it is told to end. */
import { pino } from 'pino'
import { compose } from './compose.ts'
import { loadConfig } from './config.ts'

const END_WITH_PODS = 'SIGUSR2'

/**
 * Prints `ready` when it serves, logs JSON lines to standard output. Ends on SIGTERM and SIGINT, and
 * pods run on; on SIGUSR2 it stops them first, because spawn is about to end. @throws when the configuration is refused or something cannot be opened
 */
export async function serve(configFile: string): Promise<void> {
  const log = pino({ level: 'info', redact: ['req.headers.authorization'] })
  const agent = await compose(loadConfig(configFile), log)
  let ending = false
  const end = (signal: string): void => {
    if (ending) return
    ending = true
    const over = signal === END_WITH_PODS ? agent.closeWithPods(signal) : agent.close(signal)
    over.then(
      () => process.exit(0),
      (error: unknown) => {
        log.fatal({ err: error }, 'the agent did not end cleanly')
        process.exit(1)
      },
    )
  }
  for (const signal of ['SIGTERM', 'SIGINT', END_WITH_PODS] as const) process.on(signal, end)
  process.stdout.write('ready\n')
}
