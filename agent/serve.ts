/** Runs the agent until it is told to end. */
import { pino } from 'pino'
import { compose } from './compose.ts'
import { loadConfig } from './config.ts'

/**
 * Prints `ready` when it serves, logs JSON lines to standard output, ends on SIGTERM and SIGINT;
 * pods run on. @throws when the configuration is refused or something cannot be opened
 */
export async function serve(configFile: string): Promise<void> {
  const log = pino({ level: 'info', redact: ['req.headers.authorization'] })
  const agent = await compose(loadConfig(configFile), log)
  let ending = false
  const end = (signal: string): void => {
    if (ending) return
    ending = true
    agent.close(signal).then(
      () => process.exit(0),
      (error: unknown) => {
        log.fatal({ err: error }, 'the agent did not end cleanly')
        process.exit(1)
      },
    )
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, end)
  process.stdout.write('ready\n')
}
