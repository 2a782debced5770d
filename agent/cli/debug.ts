/** `casemate debug`: why a pod does not run, and what to do. */
import type { Command } from 'commander'
import { integer } from './arguments.ts'
import { globalsOf, podPath, show, withClient } from './context.ts'
import { field, items, plain, printDetails } from './output.ts'

const LINES = ['pod', 'launch', 'attempt', 'state', 'record', 'stage', 'code', 'message'] as const

function printLine(name: string, text: string): void {
  if (text !== '') process.stdout.write(`${plain(`${name}: ${text}`)}\n`)
}

function print(found: unknown): void {
  for (const name of LINES) printLine(name, field(found, name))
  const facts: unknown = Reflect.get(Object(found), 'facts')
  if (field(found, 'facts') !== '{}') {
    process.stdout.write('facts:\n')
    printDetails(facts, '  ')
  }
  const boot = items(found, 'boot')
  if (boot.length > 0) process.stdout.write('boot:\n')
  for (const one of boot) process.stdout.write(`  ${plain(String(one))}\n`)
  printLine('next', field(found, 'next'))
}

export function addDebug(program: Command): void {
  program
    .command('debug')
    .description('at which stage a pod or a launch is or ended, why, and what to do')
    .argument('<pod>', 'or the id of a launch, refused ones too')
    .option('--attempt <n>', 'of this start; the newest if left out', integer)
    .action(async (pod: string, { attempt }: { attempt?: number }, command: Command) => {
      const options = globalsOf(command)
      const query = attempt === undefined ? '' : `?attempt=${attempt}`
      await withClient(options, async (client) => {
        const path = `${podPath(options, pod)}/debug${query}`
        show(options, await client.json({ method: 'GET', path }), print)
      })
    })
}
