/** `casemate wait`. */
import { type Command, Option } from 'commander'
import { integer } from './arguments.ts'
import type { Client } from './client.ts'
import { type GlobalOptions, globalsOf, podPath, show, withClient } from './context.ts'
import { ended, exitCodeOfPod, exitOf } from './ended.ts'

interface WaitOptions {
  readonly for: string
  readonly timeout?: number
}

const SECONDS_DEFAULT = 60

/** Once: what is not there in time is an error, with the exit code of one. */
async function reached(
  client: Client,
  options: GlobalOptions,
  { pod, given }: { readonly pod: string; readonly given: WaitOptions },
): Promise<unknown> {
  // For an end there is no time unless one is named.
  if (given.for === 'exited' && given.timeout === undefined)
    return await ended(client, options, pod)
  const query = `for=${given.for}&timeout_s=${given.timeout ?? SECONDS_DEFAULT}`
  return await client.json({ method: 'GET', path: `${podPath(options, pod)}/wait?${query}` })
}

const wordOf = (pod: unknown, given: WaitOptions): string | number =>
  given.for === 'exited' ? exitCodeOfPod(exitOf(pod)) : given.for

export function addWait(program: Command): void {
  program
    .command('wait')
    .description('wait until pods have ended for good, and print the exit code of each')
    .argument('<pods...>')
    .addOption(
      new Option('--for <what>', 'running or healthy: prints the state instead')
        .choices(['exited', 'running', 'healthy'])
        .default('exited'),
    )
    .option('--timeout <s>', 'then exit code 124; 60 for running and healthy, else none', integer)
    .action(async (pods: readonly string[], given: WaitOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const all = await Promise.all(pods.map((pod) => reached(client, options, { pod, given })))
        show(options, all, () => {
          process.stdout.write(all.map((pod) => `${wordOf(pod, given)}\n`).join(''))
        })
      })
    })
}
