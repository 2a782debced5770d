/**
 * casemate-signer: holds the log's private key, under a user of its own, without network.
 *
 *   node audit/signer/main.ts --socket PATH --keys DIR --vkey FILE --origin NAME
 *                             --uid N --peers MODULE [--gid N]
 *
 * Answers processes of user N and of root. `peerOf` of MODULE says who is at the other end: native/
 * addon.ts, named by who starts the signer, because audit/ knows nothing of native/.
 *
 * Prints one line `ready <vkey>` when it listens. Ends on SIGTERM and SIGINT.
 */
import { mkdirSync } from 'node:fs'
import type { Socket } from 'node:net'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
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
    uid: { type: 'string' },
    peers: { type: 'string' },
    gid: { type: 'string' },
  },
})

type Required = Exclude<keyof typeof values, 'gid'>

function required(name: Required): string {
  const value = values[name]
  if (value !== undefined && value !== '') return value
  throw new Error(`casemate-signer: --${name} is missing`)
}

function id(text: string, name: string): number {
  if (/^\d{1,10}$/u.test(text)) return Number(text)
  throw new Error(`casemate-signer: --${name} must be a number, not ${text}`)
}

interface Peers {
  readonly peerOf: (socket: Socket) => { readonly uid: number }
}

const peers: Peers = await import(pathToFileURL(required('peers')).href)
const access = {
  uid: id(required('uid'), 'uid'),
  uidOf: (socket: Socket) => peers.peerOf(socket).uid,
  gid: values.gid === undefined ? null : id(values.gid, 'gid'),
}

// Two signers of one key, each with a memory of its own, would sign two trees of one size. The lock
// comes before everything: the second must not touch the socket of the first either.
mkdirSync(required('keys'), { recursive: true, mode: 0o700 })
const lock = lockWriter(path.join(required('keys'), 'lock'))
const keeper = Keeper.open(required('keys'), required('origin'))
keeper.publish(required('vkey'))
const server = await listen(keeper, required('socket'), access)
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    server.close()
    lock.release()
    process.exit(0)
  })
}
process.stdout.write(`ready ${keeper.vkey}\n`)
