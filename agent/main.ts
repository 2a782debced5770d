/**
 * casemate-agent: `node agent/main.ts --config FILE`. Needs no privilege; prints `ready` when it
 * serves, logs JSON lines to standard output, and ends on SIGTERM and SIGINT while pods run on.
 */
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { compose } from './compose.ts'
import { loadConfig } from './config.ts'

/** As in sysexits.h: EX_CONFIG. */
const EXIT_CONFIG = 78

const { values } = parseArgs({ options: { config: { type: 'string' } } })
if (values.config === undefined) {
  process.stderr.write('casemate-agent: --config FILE is missing\n')
  process.exit(EXIT_CONFIG)
}
const log = pino({ level: 'info', redact: ['req.headers.authorization'] })
const agent = await compose(loadConfig(values.config), log)

let ending = false
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    if (ending) return
    ending = true
    agent.close(signal).then(
      () => process.exit(0),
      (error: unknown) => {
        log.fatal({ err: error }, 'the agent did not end cleanly')
        process.exit(1)
      },
    )
  })
}
process.stdout.write('ready\n')
