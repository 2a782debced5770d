/** `casemate agent`, `up`, `doctor`, `host`: the host itself. */
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import type { Settings } from '../../native/up/configuration.ts'
import { DEFAULT_RUN, DEFAULT_STATE, layoutOf } from '../../native/up/layout.ts'
import { enterNamespace, up } from '../../native/up/up.ts'
import { integer } from './arguments.ts'
import { Unreachable } from './client.ts'
import { type GlobalOptions, globalsOf, several, show, withClient } from './context.ts'
import { addExceptions } from './exceptions.ts'
import { EXIT } from './exit-codes.ts'
import { field, items, plain, printTable, say } from './output.ts'

interface UpOptions {
  readonly stateDir: string
  readonly runDir?: string
  readonly allowSoftwareKvm?: boolean
  readonly httpsPort?: number
  readonly operator?: readonly number[]
  readonly insecureRegistry?: readonly string[]
  readonly inNamespace?: boolean
}

const checkout = path.resolve(import.meta.dirname, '../..')

function port(text: string): number {
  const found = Number(text)
  if (Number.isInteger(found) && found >= 0 && found <= 65_535) return found
  throw new InvalidArgumentError('a port, or 0 for no HTTPS')
}

const uids = (value: string, before: readonly number[] = []): readonly number[] => [
  ...before,
  integer(value),
]

/** A run directory in a state directory of one's own, so that two hosts on one machine do not meet. */
const runDirOf = ({ stateDir, runDir }: UpOptions): string =>
  path.resolve(runDir ?? (stateDir === DEFAULT_STATE ? DEFAULT_RUN : path.join(stateDir, 'run')))

/** What is left out here stays as agent.json has it. */
function settingsOf(options: UpOptions): Settings {
  const { httpsPort: https, operator: operators, insecureRegistry: insecureRegistries } = options
  return {
    allowSoftwareKvm: options.allowSoftwareKvm === true,
    ...(https === undefined ? {} : { httpsPort: https === 0 ? null : https }),
    ...(operators === undefined ? {} : { operators }),
    ...(insecureRegistries === undefined ? {} : { insecureRegistries }),
  }
}

async function runUp(options: UpOptions): Promise<void> {
  // From here on everything is in a namespace of its own; nothing mounted here is seen outside.
  if (options.inNamespace !== true) {
    const args = process.argv.slice(1)
    const at = args.indexOf('up')
    enterNamespace([...process.execArgv, ...args.toSpliced(at + 1, 0, '--in-namespace')])
  }
  const state = path.resolve(options.stateDir)
  mkdirSync(state, { recursive: true })
  if (options.allowSoftwareKvm === true) {
    say(
      'SOFTWARE KVM IS ALLOWED: pods may run without hardware virtualisation. Not for production.',
    )
  }
  const running = await up({
    layout: layoutOf(state, runDirOf(options)),
    checkout,
    tell: say,
    settings: settingsOf(options),
  })
  const stopped = new Promise<null>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.on(signal, () => {
        resolve(null)
      })
    }
  })
  say('casemate is up')
  const failure = await Promise.race([running.failed, stopped])
  if (failure !== null) say(`casemate: ${failure}\ncasemate: everything else is ended`)
  await running.end()
  process.exit(failure === null ? EXIT.ok : EXIT.error)
}

const row = (check: unknown): readonly string[] => [
  field(check, 'id'),
  field(check, 'status'),
  field(check, 'severity'),
  field(check, 'detail'),
]
const HEAD = ['CHECK', 'STATUS', 'SEVERITY', 'DETAIL']

/** What to do about each finding, and until when one is set aside. */
function printFixes(checks: readonly unknown[]): void {
  for (const check of checks) {
    const [id, fix, until] = [
      field(check, 'id'),
      field(check, 'fix'),
      field(check, 'exception', 'until'),
    ]
    if (fix === '') continue
    const aside =
      until === '' ? '' : ` Set aside until ${until}: ${field(check, 'exception', 'reason')}`
    process.stdout.write(`${plain(`${id}: ${fix}${aside}`)}\n`)
  }
}

/** Nobody to ask is a finding like others: exit code 1, and one sentence with what to do. */
async function runDoctor(options: GlobalOptions): Promise<void> {
  try {
    await withClient(options, async (client) => {
      const found = await client.json({ method: 'GET', path: '/v1/doctor' })
      const checks = items(found, 'checks')
      show(options, found, () => {
        printTable(HEAD, checks.map(row))
        printFixes(checks)
      })
      if (checks.some((check) => field(check, 'status') === 'failed')) process.exitCode = EXIT.error
    })
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error
    const detail = `${error.message} If it was started, logs/agent.log says why it does not serve.`
    const check = { id: 'agent', status: 'failed', severity: 'severe', detail, fix: null }
    show(options, { checks: [{ ...check, exception: null }], findings: null }, () => {
      say(`casemate: nothing could be examined: ${detail}`)
    })
    process.exitCode = EXIT.error
  }
}

export function addHost(program: Command): void {
  program
    .command('up')
    .description('run signer, spawn and agent in the foreground, each under its own user (root)')
    .option('--state-dir <path>', 'what is kept', DEFAULT_STATE)
    .option('--run-dir <path>', 'sockets; /run/casemate, or run/ in another state directory')
    .option('--allow-software-kvm', 'let software KVM count as KVM: for trying out only')
    .option('--https-port <port>', 'on 127.0.0.1; 0: no HTTPS', port)
    .option('--operator <uid>', 'a user beside root that may operate, repeatable', uids)
    .option('--insecure-registry <host:port>', 'on this host or without TLS, repeatable', several)
    .addOption(program.createOption('--in-namespace').hideHelp())
    .action(runUp)
  program
    .command('agent')
    .description('run the agent alone, as systemd does')
    .requiredOption('--config <file>', 'agent.json')
    .action(async ({ config }: { config: string }) => {
      // Loaded here: the agent is most of the code, and no other command needs it.
      const { serve } = await import('../serve.ts')
      await serve(config)
    })
  program
    .command('doctor')
    .description('ask the running agent whether this host is safe and all of it works')
    .option('--vm', 'boot, restore and attack test guests here instead; without the agent (root)')
    .action(async ({ vm }: { vm?: boolean }, command: Command) => {
      if (vm !== true) {
        await runDoctor(globalsOf(command))
        return
      }
      // Loaded here, like the agent.
      const { runSelfTest } = await import('./doctor-vm.ts')
      await runSelfTest(globalsOf(command))
    })
  addExceptions(program)
}
