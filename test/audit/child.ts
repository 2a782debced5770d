/**
 * A log and its signer in a process of their own, to be killed or given failing system calls:
 *
 *   node test/audit/child.ts DIRECTORY RECORDS
 *
 * Writes a line for each thing that was promised, as soon as it was: `open`, `acked <index> <base64
 * of the record>`, `receipt <base64>`, `refused <code> <errno> <path>`, `reserved`, `done`.
 */
import { writeSync } from 'node:fs'
import path from 'node:path'
import { type AuditLog, AuditUnavailable, openAuditLog } from '../../audit/index.ts'
import { Keeper } from '../../audit/signer/keeper.ts'
import { listen } from '../../audit/signer/server.ts'
import { ACCESS, note, ORIGIN } from './harness.ts'

const [directory = '', records = '0'] = process.argv.slice(2)
const say = (line: string): void => {
  writeSync(1, `${line}\n`)
}

async function appendOne(log: AuditLog, n: number): Promise<void> {
  try {
    const { index, bytes } = await log.append(note(n, 100))
    say(`acked ${index} ${bytes.toString('base64')}`)
    if (n % 2 === 1) return
    say(`receipt ${Buffer.from(await log.receipt(index)).toString('base64')}`)
  } catch (error) {
    if (!(error instanceof AuditUnavailable)) throw error
    say(`refused ${error.code} ${error.errno ?? '-'} ${error.path}`)
    await log.appendReserve(note(n, 100))
    say('reserved')
  }
}

const keeper = Keeper.open(path.join(directory, 'keys'), ORIGIN)
const server = await listen(keeper, path.join(directory, 'signer.sock'), ACCESS)
const log = await openAuditLog({
  directory: path.join(directory, 'log'),
  signerSocket: path.join(directory, 'signer.sock'),
  vkey: keeper.vkey,
  node: { id: 'host-1', agent: { version: '0.0.0', digest: null }, config: null },
  segmentBytes: 65_536,
  reserveBytes: 65_536,
})
say('open')
for (let n = 0; n < Number(records); n += 1) {
  // oxlint-disable-next-line no-await-in-loop
  await appendOne(log, n)
}
await log.close().catch((error: unknown) => {
  if (!(error instanceof AuditUnavailable)) throw error
})
server.close()
say('done')
