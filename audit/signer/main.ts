/**
 * casemate-signer: holds the log's private key, under a user of its own, without network.
 *
 *   node audit/signer/main.ts --socket PATH --keys DIR --vkey FILE --origin NAME [--gid N]
 *
 * Prints one line `ready <vkey>` when it listens. Ends on SIGTERM and SIGINT.
 */
import { parseArgs } from 'node:util'
import { Keeper } from './keeper.ts'
import { listen } from './server.ts'

const { values } = parseArgs({
  options: {
    socket: { type: 'string' },
    keys: { type: 'string' },
    vkey: { type: 'string' },
    origin: { type: 'string' },
    gid: { type: 'string' },
  },
})

function required(name: 'socket' | 'keys' | 'vkey' | 'origin'): string {
  const value = values[name]
  if (value !== undefined && value !== '') return value
  throw new Error(`casemate-signer: --${name} is missing`)
}

const keeper = Keeper.open(required('keys'), required('origin'))
keeper.publish(required('vkey'))
const server = await listen(
  keeper,
  required('socket'),
  values.gid === undefined ? null : Number(values.gid),
)
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    server.close()
    process.exit(0)
  })
}
process.stdout.write(`ready ${keeper.vkey}\n`)
