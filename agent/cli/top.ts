/** `casemate top`: the processes of a pod, in the pod's own words. */
import type { Command } from 'commander'
import { globalsOf, podPath, show, withClient } from './context.ts'
import { field, items, printTable } from './output.ts'

/** As ps has it: minutes, seconds, hundredths. */
function timeOf(microseconds: number): string {
  const hundredths = Math.floor(microseconds / 10_000)
  const [minutes, rest] = [Math.floor(hundredths / 6000), hundredths % 6000]
  return `${minutes}:${(rest / 100).toFixed(2).padStart(5, '0')}`
}

const row = (process: unknown): readonly string[] => [
  field(process, 'pid'),
  field(process, 'user') || field(process, 'uid'),
  field(process, 'state'),
  timeOf(Number(field(process, 'cpu_us'))),
  `${(Number(field(process, 'memory_bytes')) / 2 ** 20).toFixed(1)} MiB`,
  field(process, 'command'),
]

export function addTop(program: Command): void {
  program
    .command('top')
    .description('the processes of a running pod, as the pod says')
    .argument('<pod>')
    .action(async (pod: string, _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `${podPath(options, pod)}/processes`
        show(options, await client.json({ method: 'GET', path }), (found) => {
          const head = ['PID', 'USER', 'STATE', 'TIME', 'MEMORY', 'COMMAND']
          printTable(head, items(found, 'processes').map(row))
        })
      })
    })
}
