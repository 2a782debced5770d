/**
 * casemate-signer: holds the log's private key, under a user of its own, without network.
 *
 *   node audit/signer/main.ts --socket PATH --keys DIR --vkey FILE --origin NAME [--gid N]
 *
 * Prints one line `ready <vkey>` when it listens. Ends on SIGTERM and SIGINT.
 */
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { lockWriter } from '../store/lock.ts'
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

// Two signers of one key, each with a memory of its own, would sign two trees of one size. The lock
// comes before everything: the second must not touch the socket of the first either.
mkdirSync(required('keys'), { recursive: true, mode: 0o700 })
const lock = lockWriter(path.join(required('keys'), 'lock'))
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
    lock.release()
    process.exit(0)
  })
}
process.stdout.write(`ready ${keeper.vkey}\n`)
