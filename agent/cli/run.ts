/**
 * `casemate run`: launches a pod, and in the foreground shows what it writes and ends as it ends.
 * The exit code is the pod's; 125 when Casemate refused or failed, 126 and 127 when the program
 * could not be started, 128 and the signal's number when one ended it.
 */
import { randomUUID } from 'node:crypto'
import { type Command, Option } from 'commander'
import { integer, UsageError, wordsOf } from './arguments.ts'
import { loginFor } from './authfile.ts'
import type { Client } from './client.ts'
import { type GlobalOptions, podPath, podsPath, several, show, withClient } from './context.ts'
import { endOf } from './ended.ts'
import { environmentOf } from './env-file.ts'
import { EXIT } from './exit-codes.ts'
import { addHealthOptions, type HealthOptions, healthOf } from './health.ts'
import { passInputIfRunning, refuseTerminal } from './input.ts'
import { printLogs } from './logs.ts'
import { type MountOptions, mountMembersOf } from './mounts.ts'
import { field, say } from './output.ts'

interface RunOptions extends GlobalOptions, HealthOptions, MountOptions {
  readonly isolation?: string
  readonly vcpus?: number
  readonly memory?: number
  readonly hostname?: string
  readonly interactive?: boolean
  readonly entrypoint?: string
  readonly env?: readonly string[]
  readonly envFile?: readonly string[]
  readonly ulimit?: readonly string[]
  readonly groupAdd?: readonly string[]
  readonly workdir?: string
  readonly user?: string
  readonly capAdd?: readonly string[]
  readonly capDrop?: readonly string[]
  readonly readOnly?: boolean
  readonly network?: string
  readonly restart?: string
  readonly egress?: readonly string[]
  readonly dns?: readonly string[]
  readonly dnsSearch?: readonly string[]
  readonly addHost?: readonly string[]
  readonly name?: string
  readonly label?: readonly string[]
  readonly annotation?: readonly string[]
  readonly stopSignal?: string
  readonly stopTimeout?: number
  readonly publish?: readonly string[]
  readonly authfile?: string
  readonly detach?: boolean
  readonly idempotencyKey?: string
}

const EGRESS_HELP =
  'reach only this of what the tenant may: internet, none, 192.0.2.0/24=tcp:443; repeatable'
const TMPFS_HELP = 'file system in memory: size=64m,mode=1777,ro,noexec; repeatable'
const MOUNT_HELP =
  'tmpfs, empty with medium=disk or memory, volume or host with source=NAME, subpath=; repeatable'
const CONFIG_HELP = 'a stored config as a file, /run/config/NAME; ,mode=,uid=,gid=; repeatable'
const SECRET_HELP = 'a stored secret as a file, /run/secrets/NAME; likewise'
const LEVELS = ['vm', 'container', 'host']

function envOf({ env, envFile }: RunOptions): readonly string[] | undefined {
  return env === undefined && envFile === undefined
    ? undefined
    : environmentOf(envFile ?? [], env ?? [])
}

/** `KEY=value` entries as an object; a label may have no value. */
function notesOf(entries: readonly string[] | undefined): object | undefined {
  if (entries === undefined) return undefined
  return Object.fromEntries(
    entries.map((entry) => {
      const [key = '', ...value] = entry.split('=')
      return [key, value.join('=')]
    }),
  )
}

const bodyOf = (image: string, args: readonly string[], options: RunOptions): object => ({
  image,
  isolation: options.isolation,
  vcpus: options.vcpus,
  memory_mib: options.memory,
  hostname: options.hostname,
  entrypoint: options.entrypoint === undefined ? undefined : [options.entrypoint],
  args: args.length === 0 ? undefined : args,
  env: envOf(options),
  ulimits: options.ulimit,
  groups: options.groupAdd?.map((gid) => integer(gid)),
  cwd: options.workdir,
  user: options.user,
  capabilities_add: options.capAdd,
  capabilities_drop: options.capDrop,
  read_only_root: options.readOnly,
  ...mountMembersOf(options),
  network: options.network,
  restart: options.restart,
  egress: wordsOf(options.egress),
  nameservers: options.dns,
  search: options.dnsSearch,
  hosts: options.addHost,
  name: options.name,
  labels: notesOf(options.label),
  annotations: notesOf(options.annotation),
  stop_signal: options.stopSignal,
  stop_timeout_ms: options.stopTimeout,
  publish: options.publish,
  health: healthOf(options),
  registry_credentials:
    options.authfile === undefined ? undefined : (loginFor(options.authfile, image) ?? undefined),
})

/** Ctrl-C asks the pod to end; a second one leaves it to itself. */
function passSignals(client: Client, options: GlobalOptions, pod: string): void {
  let asked = false
  const stop = (): void => {
    if (asked) process.exit(EXIT.notRun)
    asked = true
    say(`casemate: stopping ${pod}; again to leave it running`)
    const call = { method: 'POST', path: `${podPath(options, pod)}/stop`, body: {} } as const
    client.json(call).catch((error: unknown) => say(`casemate: ${String(error)}`))
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop)
}

async function foreground(client: Client, options: RunOptions, pod: string): Promise<number> {
  passSignals(client, options, pod)
  const input = options.interactive === true ? await passInputIfRunning(options, pod) : null
  try {
    const shown = { follow: true, query: {}, all: false, timestamps: false }
    await printLogs(client, options, { pod, ...shown })
    return await endOf(client, options, pod)
  } finally {
    input?.stop()
  }
}

async function run(image: string, args: readonly string[], options: RunOptions): Promise<number> {
  if (options.interactive === true) {
    refuseTerminal()
    if (options.detach === true) throw new UsageError('-i is for the foreground: attach -i later')
  }
  return await withClient(options, async (client) => {
    const launched = await client.json({
      method: 'POST',
      path: podsPath(options),
      headers: { 'idempotency-key': options.idempotencyKey ?? randomUUID() },
      body: bodyOf(image, args, options),
    })
    const pod = field(launched, 'id')
    if (options.detach !== true) return await foreground(client, options, pod)
    show(options, launched, () => process.stdout.write(`${pod}\n`))
    return EXIT.ok
  })
}

export function addRun(program: Command): void {
  addHealthOptions(addLaunch(program))
}

function addLaunch(program: Command): Command {
  return program
    .command('run')
    .description('launch a pod; in the foreground show what it writes and end as it ends')
    .argument('<image>', 'reference, with registry')
    .argument('[args...]', 'arguments in place of the image’s; after --')
    .addOption(new Option('--isolation <level>', 'exactly this level or a refusal').choices(LEVELS))
    .option('--vcpus <n>', 'virtual CPUs, 1 to 8; 1 when left out', integer)
    .option('--memory <MiB>', 'memory, 128 to 16384; 128 when left out', integer)
    .option('--hostname <name>', 'host name inside')
    .option('--entrypoint <program>', 'program in place of the image’s')
    .option('-e, --env <KEY=value>', 'environment, repeatable', several)
    .option('--env-file <file>', 'the same, a line each; --env goes before it; repeatable', several)
    .option('--ulimit <NAME=SOFT[:HARD]>', 'as nofile=1024:4096; repeatable', several)
    .option('--group-add <gid>', 'further group, by number; repeatable', several)
    .option('-w, --workdir <path>', 'working directory')
    .option('-u, --user <user>', 'uid, uid:gid, name or name:group')
    .option('--cap-add <capability>', 'by its full name, as CAP_NET_RAW; repeatable', several)
    .option('--cap-drop <capability>', 'likewise', several)
    .option('--read-only', 'read-only root file system')
    .option('-v, --volume <name:/path[:ro]>', 'named volume of the tenant; repeatable', several)
    .option('--tmpfs <path[:options]>', TMPFS_HELP, several)
    .option('--mount <type=T,target=PATH>', MOUNT_HELP, several)
    .option('--config <name[:/path]>', CONFIG_HELP, several)
    .option('--secret <name[:/path]>', SECRET_HELP, several)
    .option(
      '--file <local:/path>',
      'a small file of here, in the pod’s memory; repeatable',
      several,
    )
    .option('--shm-size <size>', 'size of /dev/shm; 64m if left out')
    .option('--sysctl <NAME=value>', 'parameter of the kernel that is the pod’s own', several)
    .option(
      '--network <name>',
      'default: the tenant’s own; host: the host’s, at level host; none when left out',
    )
    .option('--name <name>', 'unique among the tenant’s pods that have not ended')
    .option('-l, --label <KEY=value>', 'to find it by; repeatable', several)
    .option('--annotation <KEY=value>', 'to be read by people and programs; repeatable', several)
    .option('--stop-signal <signal>', 'name or number; the image’s, or TERM, if left out')
    .option('--stop-timeout <ms>', 'from asking to killing; 10000 if left out', integer)
    .option(
      '--restart <rule>',
      'no, on-failure, on-failure:N, always or unless-stopped; no if left out',
    )
    .option(
      '-p, --publish <[address:]host:pod[/udp]>',
      'port of the host that leads to it; repeatable',
      several,
    )
    .option('--egress <network>', EGRESS_HELP, several)
    .option('--dns <address>', 'nameserver in place of the host’s; repeatable', several)
    .option('--dns-search <domain>', 'likewise', several)
    .option('--add-host <name:address>', 'line of /etc/hosts; repeatable', several)
    .option('--authfile <file>', 'login of the registry, as `skopeo login` and docker write it')
    .option('-i, --interactive', 'pass standard input on, a pipe or a file')
    .option('-d, --detach', 'print the pod’s id and leave it running')
    .option('--idempotency-key <key>', 'the same key never launches twice')
    .action(async (image: string, args: readonly string[], _options, command: Command) => {
      const options = command.optsWithGlobals<RunOptions>()
      try {
        process.exitCode = await run(image, args, options)
      } catch (error) {
        // In the foreground every code below 125 is the pod's.
        if (options.detach === true || !(error instanceof Error)) throw error
        throw Object.assign(error, { exitCode: EXIT.notRun })
      }
    })
}
