/** `casemate ps`, `logs`, `stop`, `kill`, `rename`, `wait`, `rm`, `inspect`. */
import type { Command } from 'commander'
import { integer, UsageError } from './arguments.ts'
import { globalsOf, podPath, several, show, withClient } from './context.ts'
import { printLogs } from './logs.ts'
import { field, printDetails, printTable, say } from './output.ts'
import { addPrune, listAll, listQuery, type PsOptions } from './pod-list.ts'
import { addWait } from './wait.ts'

const HEAD = [
  'POD',
  'NAME',
  'STATE',
  'HEALTH',
  'LEVEL',
  'KVM',
  'IMAGE',
  'CREATED',
  'RECORD',
  'ENDED',
]

function endOf(pod: unknown): string {
  const problem = field(pod, 'problem', 'code')
  if (problem !== '') return problem
  const how = field(pod, 'exit', 'how')
  return how === '' ? '' : `${how} ${field(pod, 'exit', 'value')}`
}

const row = (pod: unknown): readonly string[] => [
  field(pod, 'id'),
  field(pod, 'name'),
  field(pod, 'state'),
  field(pod, 'health', 'state'),
  field(pod, 'isolation'),
  field(pod, 'facts', 'kvm'),
  field(pod, 'image', 'reference'),
  field(pod, 'created'),
  field(pod, 'record'),
  endOf(pod),
]

function addPs(program: Command): void {
  program
    .command('ps')
    .description('list a tenant’s pods that have not ended, the newest first')
    .option('-a, --all', 'also those that have ended')
    .option('-q, --quiet', 'ids only')
    .option(
      '-f, --filter <what=value>',
      'state, name, image, level, health, label; repeatable',
      several,
    )
    .action(async (given: PsOptions, command: Command) => {
      const options = globalsOf(command)
      const query = listQuery(given)
      await withClient(options, async (client) => {
        const found = await listAll(client, options, query)
        const { pods } = found
        if (given.quiet === true)
          process.stdout.write(pods.map((pod) => `${field(pod, 'id')}\n`).join(''))
        else show(options, found, () => printTable(HEAD, pods.map(row)))
      })
    })
}

function addNames(program: Command): void {
  program
    .command('rename')
    .description('give a pod another name')
    .argument('<pod>')
    .argument('<name>')
    .action(async (pod: string, name: string, _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `${podPath(options, pod)}/rename`
        const found = await client.json({ method: 'POST', path, body: { name } })
        show(options, found, () => say(`${field(found, 'id')} is ${name}`))
      })
    })
}

interface LogsOptions {
  readonly follow?: boolean
  readonly since?: string
  readonly until?: string
  readonly tail?: number
  readonly attempt?: number
  readonly timestamps?: boolean
  readonly stdout?: boolean
  readonly stderr?: boolean
  readonly all?: boolean
}

/** The query of the API. @throws UsageError */
function logQuery(options: LogsOptions): Readonly<Record<string, string>> {
  const { since, until, tail, attempt, stdout, stderr } = options
  if (stdout === true && stderr === true) {
    throw new UsageError('--stdout and --stderr each mean that stream alone; leave both out')
  }
  const stream = stdout === true ? 'stdout' : stderr === true ? 'stderr' : undefined
  // Digits alone are a place in the log, everything else a time.
  const name = since !== undefined && /^\d+$/u.test(since) ? 'since' : 'from'
  const query = { [name]: since, until, tail, attempt, stream }
  const given = Object.entries(query).filter(([, value]) => value !== undefined)
  return Object.fromEntries(given.map(([key, value]) => [key, String(value)]))
}

function addLogs(program: Command): void {
  program
    .command('logs')
    .description('what a pod wrote, in all of its starts that are kept')
    .argument('<pod>')
    .option('-f, --follow', 'until the pod ends for good, also over a restart of the agent')
    .option('--tail <lines>', 'the last lines alone, and what follows', integer)
    .option('--since <time>', 'RFC 3339, or ago as 10m, 1h30m; digits: from a record’s `next` on')
    .option('--until <time>', 'likewise')
    .option('--attempt <n>', 'from this start on', integer)
    .option('--timestamps', 'when each line was written')
    .option('--stdout', 'standard output alone')
    .option('--stderr', 'standard error alone')
    .option('--all', 'the guest’s console and the VMM’s notes as well, on standard error')
    .action(async (pod: string, given: LogsOptions, command: Command) => {
      const options = globalsOf(command)
      const query = logQuery(given)
      await withClient(options, async (client) => {
        await printLogs(client, options, {
          pod,
          follow: given.follow === true,
          query,
          all: given.all === true,
          timestamps: given.timestamps === true,
        })
      })
    })
}

function addStopAndRemove(program: Command): void {
  program
    .command('stop')
    .description('ask a pod to end, and kill it after a time')
    .argument('<pod>')
    .option('--timeout <ms>', 'from asking to killing; the pod’s own if left out', integer)
    .action(async (pod: string, { timeout }: { timeout?: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { timeout_ms: timeout }
        const path = `${podPath(options, pod)}/stop`
        const told = await client.json({ method: 'POST', path, body })
        const ms = timeout ?? Number(field(told, 'facts', 'stop_timeout_ms'))
        const wait = `${podPath(options, pod)}/wait?timeout_s=${Math.ceil(ms / 1000) + 30}`
        show(options, await client.json({ method: 'GET', path: wait }), (found) => {
          say(`${pod} ${endOf(found)}`)
        })
      })
    })
  program
    .command('kill')
    .description('send a signal to the first process of pods')
    .argument('<pods...>')
    .option('-s, --signal <signal>', 'name or number, as in signal(7)', 'KILL')
    .action(async (pods: readonly string[], { signal }: { signal: string }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        for (const pod of pods) {
          const path = `${podPath(options, pod)}/kill`
          // oxlint-disable-next-line no-await-in-loop -- stops at the first that is refused
          await client.json({ method: 'POST', path, body: { signal } })
          say(`${pod} was sent ${signal}`)
        }
      })
    })
  program
    .command('rm')
    .description('remove ended pods and their logs; their records stay')
    .argument('<pods...>')
    .action(async (pods: readonly string[], _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        for (const pod of pods) {
          // oxlint-disable-next-line no-await-in-loop -- stops at the first that cannot be removed
          await client.json({ method: 'DELETE', path: podPath(options, pod) })
          say(`${pod} removed`)
        }
      })
    })
}

export function addPods(program: Command): void {
  addPs(program)
  addNames(program)
  addWait(program)
  addPrune(program)
  addLogs(program)
  addStopAndRemove(program)
  program
    .command('inspect')
    .description('all there is to know of a pod')
    .argument('<pod>')
    .action(async (pod: string, _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const found = await client.json({ method: 'GET', path: podPath(options, pod) })
        show(options, found, printDetails)
      })
    })
}
