/** `casemate host exception add|list|rm`: findings of the host that operators put up with for a time. */
import type { Command } from 'commander'
import { globalsOf, show, withClient } from './context.ts'
import { addDrain } from './drain.ts'
import { field, items, printDetails, printTable } from './output.ts'

const PATH = '/v1/host/exceptions'
const HEAD = ['FINDING', 'STATE', 'UNTIL', 'BY', 'RECORD', 'REASON']

const row = (exception: unknown): readonly string[] =>
  ['finding', 'state', 'until', 'by', 'record', 'reason'].map((name) => field(exception, name))

interface AddOptions {
  readonly until: string
  readonly reason: string
}

export function addExceptions(program: Command): void {
  const host = program
    .command('host')
    .description('this host: what is put up with, and taking it out of service')
  addDrain(host)
  const exception = host
    .command('exception')
    .description('severe findings of `doctor` that do not keep tenants out, until a day')
  exception
    .command('add')
    .description('set a severe finding aside, on record, in place of an earlier exception for it')
    .argument('<finding>', 'its id, as doctor shows it')
    .requiredOption('--until <time>', 'as 2027-01-31T18:00:00Z, within 90 days')
    .requiredOption('--reason <text>', 'why it can be put up with until then')
    .action(async (finding: string, { until, reason }: AddOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { finding, until, reason }
        const made = await client.json({ method: 'POST', path: PATH, body })
        show(options, made, printDetails)
      })
    })
  exception
    .command('list')
    .description('all exceptions, those whose time is over too')
    .action(async (_options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const found = await client.json({ method: 'GET', path: PATH })
        show(options, found, () => printTable(HEAD, items(found, 'exceptions').map(row)))
      })
    })
  exception
    .command('rm')
    .description('take an exception back, at once')
    .argument('<finding>')
    .action(async (finding: string, _options, command: Command) => {
      await withClient(globalsOf(command), async (client) => {
        await client.json({ method: 'DELETE', path: `${PATH}/${encodeURIComponent(finding)}` })
      })
    })
}
