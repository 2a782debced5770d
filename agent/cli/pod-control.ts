/** `casemate pause`, `resume`, `resize`, `stats`. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import { integer } from './arguments.ts'
import { type Client, ProblemError } from './client.ts'
import { type GlobalOptions, globalsOf, podPath, show, withClient } from './context.ts'
import { field, printTable, say } from './output.ts'

const USAGE = [
  ['cpu', 'cpu_us', 1_000_000, 's'],
  ['cpu throttled', 'cpu_throttled_us', 1_000_000, 's'],
  ['memory', 'memory_bytes', 1 << 20, 'MiB'],
  ['memory, the most', 'memory_peak_bytes', 1 << 20, 'MiB'],
  ['disk', 'scratch_bytes', 1 << 20, 'MiB'],
  ['disk of the host that it takes', 'scratch_used_bytes', 1 << 20, 'MiB'],
  ['threads', 'tasks', 1, ''],
] as const

const MACHINE = ['exits_mmio', 'exits_port', 'exits_other', 'refused_msrs', 'stray_accesses']
const HEAD = ['DEVICE', 'REQUESTS', 'TO GUEST', 'FROM GUEST', 'THROTTLED', 'ERRORS', 'DROPPED']
const DEVICES = ['init', 'image', 'scratch', 'console', 'rng', 'net', 'balloon']
const VOLUMES = ['volume1', 'volume2', 'volume3', 'volume4']
/** Neither work, nor errors, nor drops. */
const WORK = new Set([
  'requests',
  'interrupts',
  'bytes_to_guest',
  'bytes_from_guest',
  'throttled_ns',
])

function scaled(text: string, unit: number, name: string): string {
  if (text === '') return '-'
  const value = unit === 1 ? text : (Number(text) / unit).toFixed(1)
  return `${value} ${name}`.trimEnd()
}

function sum(counters: unknown, keep: (name: string) => boolean): string {
  const entries = typeof counters === 'object' && counters !== null ? Object.entries(counters) : []
  return String(
    entries.filter(([name]) => keep(name)).reduce((total, [, count]) => total + Number(count), 0),
  )
}

const isDropped = (name: string): boolean => name.startsWith('dropped_')

function deviceRow(stats: unknown, device: string): readonly string[] {
  const of = (name: string): string => field(stats, 'counters', 'devices', device, name)
  const counters: unknown = JSON.parse(field(stats, 'counters', 'devices', device))
  return [
    device,
    of('requests'),
    of('bytes_to_guest'),
    of('bytes_from_guest'),
    scaled(of('throttled_ns'), 1_000_000, 'ms'),
    sum(counters, (name) => !WORK.has(name) && !isDropped(name)),
    sum(counters, isDropped),
  ]
}

/** Most pods have no volumes. */
const isUsed = (stats: unknown, device: string): boolean =>
  Number(field(stats, 'counters', 'devices', device, 'requests')) > 0

function printStats(stats: unknown): void {
  const rows = USAGE.map(([name, member, unit, suffix]) => [
    name,
    scaled(field(stats, 'usage', member), unit, suffix),
  ])
  if (field(stats, 'state') === 'paused') {
    printTable(['WHAT', 'NOW'], rows)
    say('paused: its VMM counts nothing until it is resumed')
    return
  }
  const counted = MACHINE.map((name) => [name, field(stats, 'counters', 'machine', name)])
  printTable(['WHAT', 'NOW'], [...rows, ...counted])
  printTable(
    HEAD,
    [...DEVICES, ...VOLUMES.filter((device) => isUsed(stats, device))].map((device) =>
      deviceRow(stats, device),
    ),
  )
}

/** Until the pod has ended, which is no failure of the one who watches. */
async function watchStats(
  client: Client,
  options: GlobalOptions,
  { pod, seconds }: { readonly pod: string; readonly seconds: number },
): Promise<void> {
  for (let first = true; ; first = false) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- one look after the other
      const found = await client.json({ method: 'GET', path: `${podPath(options, pod)}/stats` })
      // One line each, so that a script can read them as they come.
      if (options.output === 'json') process.stdout.write(`${JSON.stringify(found)}\n`)
      else printStats(found)
    } catch (error) {
      const ended = error instanceof ProblemError && error.code === 'POD_STATE_CONFLICT'
      if (first || !ended) throw error
      say(error.message)
      return
    }
    // oxlint-disable-next-line no-await-in-loop
    await delay(seconds * 1000)
  }
}

function addPauses(program: Command): void {
  const verbs = [
    ['pause', 'have pods stand still where they are; memory and quota stay taken'],
    ['resume', 'let paused pods go on'],
  ] as const
  for (const [verb, description] of verbs) {
    program
      .command(verb)
      .description(description)
      .argument('<pods...>')
      .action(async (pods: readonly string[], _options, command: Command) => {
        const options = globalsOf(command)
        await withClient(options, async (client) => {
          for (const pod of pods) {
            const path = `${podPath(options, pod)}/${verb}`
            // oxlint-disable-next-line no-await-in-loop -- stops at the first that is refused
            const found = await client.json({ method: 'POST', path, body: {} })
            show(options, found, () => {
              say(`${pod} ${field(found, 'state')}`)
            })
          }
        })
      })
  }
}

function addResize(program: Command): void {
  program
    .command('resize')
    .description('give a running pod more disk; it cannot be taken back')
    .argument('<pod>')
    .requiredOption('--scratch <MiB>', 'all of its disk', integer)
    .action(async (pod: string, { scratch }: { scratch: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `${podPath(options, pod)}/resize`
        const body = { scratch_bytes: scratch * 2 ** 20 }
        show(options, await client.json({ method: 'POST', path, body }), () => {
          say(`${pod} has ${scratch} MiB of disk`)
        })
      })
    })
}

export function addPodControl(program: Command): void {
  addPauses(program)
  addResize(program)
  program
    .command('stats')
    .description('what a running pod takes of the host, and what its VMM counted')
    .argument('<pod>')
    .option('-w, --watch', 'again and again, until the pod ends')
    .option('--interval <s>', 'seconds between two looks', integer, 2)
    .action(
      async (
        pod: string,
        { watch, interval }: { watch?: boolean; interval: number },
        command: Command,
      ) => {
        const options = globalsOf(command)
        await withClient(options, async (client) => {
          if (watch === true) {
            await watchStats(client, options, { pod, seconds: Math.max(interval, 1) })
            return
          }
          const path = `${podPath(options, pod)}/stats`
          show(options, await client.json({ method: 'GET', path }), printStats)
        })
      },
    )
}
