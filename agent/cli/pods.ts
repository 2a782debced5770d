/** `casemate ps`, `logs`, `stop`, `rm`, `inspect`. */
import type { Command } from 'commander'
import { integer } from './arguments.ts'
import { globalsOf, podPath, podsPath, show, withClient } from './context.ts'
import { printLogs } from './logs.ts'
import { field, items, printDetails, printTable, say } from './output.ts'

const HEAD = ['POD', 'STATE', 'LEVEL', 'KVM', 'IMAGE', 'CREATED', 'RECORD', 'ENDED']

function endOf(pod: unknown): string {
  const problem = field(pod, 'problem', 'code')
  if (problem !== '') return problem
  const how = field(pod, 'exit', 'how')
  return how === '' ? '' : `${how} ${field(pod, 'exit', 'value')}`
}

const row = (pod: unknown): readonly string[] => [
  field(pod, 'id'),
  field(pod, 'state'),
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
    .description('list a tenant’s pods, the newest first')
    .option('-q, --quiet', 'ids only')
    .action(async ({ quiet }: { quiet?: boolean }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const found = await client.json({ method: 'GET', path: `${podsPath(options)}?limit=1000` })
        const pods = items(found, 'pods')
        if (quiet === true)
          process.stdout.write(pods.map((pod) => `${field(pod, 'id')}\n`).join(''))
        else show(options, found, () => printTable(HEAD, pods.map(row)))
      })
    })
}

function addLogs(program: Command): void {
  program
    .command('logs')
    .description('what a pod wrote')
    .argument('<pod>')
    .option('-f, --follow', 'until the pod ends')
    .option('--since <offset>', 'from a record’s `next` on', integer, 0)
    .option('--all', 'the guest’s console and the VMM’s notes as well, on standard error')
    .action(
      async (
        pod: string,
        { follow, since, all }: { follow?: boolean; since: number; all?: boolean },
        command: Command,
      ) => {
        const options = globalsOf(command)
        await withClient(options, async (client) => {
          const call = { pod, follow: follow === true, since, all: all === true }
          await printLogs(client, options, call)
        })
      },
    )
}

function addStopAndRemove(program: Command): void {
  program
    .command('stop')
    .description('ask a pod to end, and kill it after a time')
    .argument('<pod>')
    .option('--timeout <ms>', 'from asking to killing', integer, 10_000)
    .action(async (pod: string, { timeout }: { timeout: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { timeout_ms: timeout }
        await client.json({ method: 'POST', path: `${podPath(options, pod)}/stop`, body })
        const wait = `${podPath(options, pod)}/wait?timeout_s=${Math.ceil(timeout / 1000) + 30}`
        show(options, await client.json({ method: 'GET', path: wait }), (ended) => {
          say(`${pod} ${endOf(ended)}`)
        })
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
