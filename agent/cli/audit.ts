/** `casemate audit show|receipt|verify`. */
import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { RECORD_BYTES_MAX, type VerifyReport, verifyLog, verifyReceipt } from '../../audit/index.ts'
import { type Canonical, canonicalBytes, parseJson } from '../../policy/canonical.ts'
import { integer, readNamed } from './arguments.ts'
import { type GlobalOptions, globalsOf, podPath, several, show, withClient } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { field, items, plain, printDetails, printTable, say } from './output.ts'

/** Digits are an index of the log, for operators; everything else is a pod of the tenant. */
const recordPath = (options: GlobalOptions, what: string): string =>
  /^\d+$/u.test(what) ? `/v1/audit/records/${what}` : `${podPath(options, what)}/record`

const receiptPath = (options: GlobalOptions, what: string): string =>
  /^\d+$/u.test(what) ? `/v1/audit/records/${what}/receipt` : `${podPath(options, what)}/receipt`

const row = (entry: unknown): readonly string[] => [
  field(entry, 'index'),
  field(entry, 'record', 'time'),
  field(entry, 'record', 'type'),
  field(entry, 'record', 'tenant'),
  field(entry, 'record', 'launch_id'),
  field(entry, 'record', 'refusal', 'code'),
]

function addShow(audit: Command): void {
  audit
    .command('show')
    .description('one record, by index or by pod; without either 1000 from --from on')
    .argument('[index|pod]')
    .option('--from <index>', 'list from here; 0 when left out', integer)
    .action(async (what: string | undefined, { from }: { from?: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        if (what !== undefined) {
          const path = recordPath(options, what)
          show(options, await client.json({ method: 'GET', path }), printDetails)
          return
        }
        const path = `/v1/audit/records?from=${from ?? 0}&limit=1000`
        const found = await client.json({ method: 'GET', path })
        const head = ['INDEX', 'TIME', 'TYPE', 'TENANT', 'LAUNCH', 'REFUSAL']
        show(options, found, () => printTable(head, items(found, 'records').map(row)))
        const next = field(found, 'next')
        if (next !== '') say(`there are more: casemate audit show --from ${next}`)
      })
    })
}

/** Whether the receipt is of this record and signed by the log; throws when it is not. */
function checkReceipt(receipt: string, entry: unknown, vkeyFile: string): void {
  const record: unknown =
    typeof entry === 'object' && entry !== null ? Reflect.get(entry, 'record') : null
  // A record's bytes are canonical JSON, so its members say what they were.
  const bytes = canonicalBytes(asCanonical(record))
  verifyReceipt(receipt, bytes, [readNamed('--verify', vkeyFile).trim()])
}

/** What came as JSON, as what canonical JSON can hold. */
const asCanonical = (record: unknown): Canonical =>
  parseJson(JSON.stringify(record), { bytesMax: RECORD_BYTES_MAX * 2, depthMax: 32 })

function addReceipt(audit: Command): void {
  audit
    .command('receipt')
    .description('the receipt of a record, a C2SP tlog-proof')
    .argument('<index|pod>')
    .option('--out <file>', 'write it there')
    .option('--verify <vkey-file>', 'and check it and the record against the log’s public key')
    .action(async (what: string, chosen: { out?: string; verify?: string }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const entry = await client.json({ method: 'GET', path: recordPath(options, what) })
        const receipt = await client.text({ method: 'GET', path: receiptPath(options, what) })
        if (chosen.verify !== undefined) checkReceipt(receipt, entry, chosen.verify)
        if (chosen.out !== undefined) await writeFile(chosen.out, receipt)
        const verified = chosen.verify !== undefined
        show(options, { index: Number(field(entry, 'index')), verified, receipt }, () => {
          if (chosen.out === undefined) process.stdout.write(receipt)
          if (verified) say(`record ${field(entry, 'index')} is in the log, as its key signed it`)
        })
      })
    })
}

function printReport(report: VerifyReport): void {
  const { origin, size, verified, problems, notExcluded } = report
  process.stdout.write(`log       ${plain(origin ?? 'unknown')}\n`)
  process.stdout.write(`verified  ${verified} of ${size} records\n`)
  for (const { kind, path, message } of problems) {
    process.stdout.write(`${kind}  ${plain(path)}: ${plain(message)}\n`)
  }
  for (const sentence of notExcluded) process.stdout.write(`not excluded  ${sentence}\n`)
}

export function addAudit(program: Command): void {
  const audit = program.command('audit').description('the record of every decision')
  addShow(audit)
  addReceipt(audit)
  audit
    .command('verify')
    .description('check a log offline, from its public directory alone')
    .argument('<directory>', 'with checkpoint and tile/')
    .requiredOption('--vkey <file>', 'the log’s public key, from somewhere else than the log')
    .option('--known <checkpoint>', 'a checkpoint kept elsewhere, repeatable', several)
    .action(
      async (
        directory: string,
        { vkey, known }: { vkey: string; known?: readonly string[] },
        command: Command,
      ) => {
        const checkpoints = (known ?? []).map((file) => readNamed('--known', file))
        const key = readNamed('--vkey', vkey).trim()
        const report = await verifyLog(directory, [key], { known: checkpoints })
        show(globalsOf(command), report, () => printReport(report))
        if (report.exitCode === 1) process.exitCode = EXIT.tampered
        if (report.exitCode === 2) process.exitCode = EXIT.verification
      },
    )
}
