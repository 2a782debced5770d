/** casemate-agent: `node agent/main.ts --config FILE`. Needs no privilege. */
import { parseArgs } from 'node:util'
import { serve } from './serve.ts'

/** As in sysexits.h: EX_CONFIG. */
const EXIT_CONFIG = 78

const { values } = parseArgs({ options: { config: { type: 'string' } } })
try {
  if (values.config === undefined) throw new Error('--config FILE is missing')
  await serve(values.config)
} catch (error) {
  process.stderr.write(
    `casemate-agent: ${error instanceof Error ? error.message : String(error)}\n`,
  )
  process.exit(EXIT_CONFIG)
}
