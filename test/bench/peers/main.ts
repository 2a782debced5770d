/**
 * Casemate's VMM and Firecracker on one host, in turn: npm run bench:peers [-- --json] [--only GROUP]... [--boots N] [--many]
 * docs/benchmarks.md says what each figure is.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { freemem } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type Machine, openMachine, whyNot } from '../../system/harness.ts'
import { type Environment, environment } from '../environment.ts'
import type { Skipped } from '../figures.ts'
import { measureDevices } from './devices.ts'
import { type Firecracker, noFirecracker, openFirecracker } from './firecracker.ts'
import {
  measureAnswer,
  measureBoot,
  measureCrowds,
  measureFirst,
  measureOverhead,
  measureRate,
  type Peers,
} from './measure.ts'
import { openOurs } from './ours.ts'
import { type Pair, table } from './pairs.ts'
import { buildParts } from './parts.ts'

/** Where a figure's files are: kept over a reboot by every distribution, so never in memory. */
const PLACE = '/var/tmp/casemate-peers-'
const USAGE_ERROR = 2
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

const FIRSTS = 20
/** In software KVM a boot takes half a minute. */
const BOOTS = { software: 3, hardware: 10 } as const
const ANSWERS = 10
const ROUNDS = 3
const ROUND_OF = 12
const SIZES = [1, 10, 100] as const
const MANY = 300
/** What 300 guests of either program may want, generously: they are not started on a host with less. */
const MANY_FREE_BYTES = 8 * 2 ** 30

interface Report {
  readonly v: 'casemate.peers/1'
  readonly time: string
  readonly host: Environment
  readonly kvm: 'software' | 'hardware'
  readonly firecracker: { readonly version: string; readonly dynamic: boolean }
  readonly pairs: readonly Pair[]
  readonly failed: readonly Skipped[]
}

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    boots: { type: 'string' },
    many: { type: 'boolean', default: false },
  },
})
const say = (line: string): void => void process.stderr.write(`${line}\n`)

function sizes(): readonly number[] {
  if (!options.many) return SIZES
  if (freemem() >= MANY_FREE_BYTES) return [...SIZES, MANY]
  say(`${MANY} guests: skipped: less than ${MANY_FREE_BYTES / 2 ** 30} GiB of memory are free`)
  return SIZES
}

type Group = (peers: Peers, kvm: 'software' | 'hardware') => Promise<readonly Pair[]>

const groups: Readonly<Record<string, Group>> = {
  first: (peers) => measureFirst(peers, FIRSTS),
  answer: (peers) => measureAnswer(peers, ANSWERS),
  rate: (peers) => measureRate(peers, ROUNDS, ROUND_OF),
  idle: (peers) => measureCrowds(peers, sizes()),
  overhead: (peers) => measureOverhead(peers),
  devices: (peers) => measureDevices(peers),
  boot: (peers, kvm) => measureBoot(peers, Number(options.boots ?? BOOTS[kvm])),
}

interface Opened {
  readonly machine: Machine
  readonly ours: Peers['ours']
  readonly theirs: Firecracker
}

/** Two templates and a snapshot: boots, side by side, before anything is measured. */
async function open(folder: string, program: string): Promise<Opened> {
  const parts = await buildParts(folder)
  const machine = await openMachine()
  try {
    const { kernel } = machine.artifacts
    const { cmdline } = machine.host
    const [ours, theirs] = await Promise.all([
      openOurs(machine, parts),
      openFirecracker({ program, parts, kernel, cmdline }),
    ])
    await machine.template.catch(() => undefined) // a boot of the harness's own, over before we measure
    return { machine, ours, theirs }
  } catch (error) {
    await machine.close()
    throw error
  }
}

async function measureAll(folder: string, program: string): Promise<Report> {
  const time = new Date().toISOString()
  const host = environment(folder)
  say('templates and snapshot: a boot each')
  const { machine, ours, theirs } = await open(folder, program)
  try {
    const kvm = machine.host.kvm ?? 'software'
    const pairs: Pair[] = []
    const failed: Skipped[] = []
    for (const [group, measure] of Object.entries(groups)) {
      if (options.only !== undefined && !options.only.includes(group)) continue
      say(`${group}: measuring`)
      try {
        pairs.push(...(await measure({ ours, theirs }, kvm)))
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        failed.push({ group, reason })
        say(`${group}: failed: ${reason}`)
      }
    }
    const { version, dynamic } = theirs
    return {
      v: 'casemate.peers/1',
      time,
      host,
      kvm,
      firecracker: { version, dynamic },
      pairs,
      failed,
    }
  } finally {
    await machine.close()
  }
}

function print({ time, host, kvm, firecracker, pairs }: Report): void {
  const lines = [
    `${time}, commit ${host.commit ?? 'unknown'}${host.changed === true ? ' with changes' : ''}`,
    `${host.cpu}, ${host.cores} cores, ${host.memory_mib} MiB, Linux ${host.kernel}, ${host.file_system}, load ${host.load}`,
    `Node ${host.node}, KVM: ${kvm}`,
    `Firecracker ${firecracker.version}, ${firecracker.dynamic ? 'for GNU libc: its seccomp filters allow everything' : 'static'}`,
    '',
    table(pairs),
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

async function main(program: string): Promise<void> {
  const folder = mkdtempSync(PLACE)
  chmodSync(folder, 0o711) // the signer passes through to its own folder
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  for (const [signal, code] of Object.entries(SIGNALS)) process.on(signal, () => process.exit(code))
  const report = await measureAll(folder, program)
  if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`)
  else print(report)
  if (report.failed.length > 0) process.exitCode = 1
}

const unknown = options.only?.find((name) => !Object.hasOwn(groups, name))
const program = process.env['FIRECRACKER']
const missing = noFirecracker(program) ?? whyNot()
if (options.boots !== undefined && !/^[1-9]\d{0,2}$/u.test(options.boots)) {
  say(`--boots is a number from 1 to 999, not ${options.boots}`)
  process.exitCode = USAGE_ERROR
} else if (unknown !== undefined) {
  say(`there is no group ${unknown}; there are: ${Object.keys(groups).join(', ')}`)
  process.exitCode = USAGE_ERROR
} else if (missing !== null || program === undefined) say(`skipped: ${missing}`)
else await main(path.resolve(program))
