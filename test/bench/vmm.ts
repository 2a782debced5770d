/** Virtual machines: the VMM by itself, and a launch through casemate-spawn. */
import path from 'node:path'
import { type Machine, openMachine } from '../system/harness.ts'
import { buildDisk, type DiskFile } from '../system/images.ts'
import { prepare, start } from '../system/launch.ts'
import { busyboxTar, HELLO, IDLE } from './busybox.ts'
import { type Figure, figure } from './figures.ts'
import { nowUs } from './timing.ts'
import { buildRunner, type Watched, watchVmm } from './vmm/run.ts'

const FIRST_RUNS = 5
/** A cold boot takes most of a minute in software KVM. */
const COLD_BOOTS = 3
const RESTORES = 5
const SAMPLED_RESTORES = 3
const LAUNCHES = 5
const US_PER_MS = 1000

/** What every launch here is made of. */
interface Bench {
  readonly machine: Machine
  readonly image: DiskFile
  /** Path of run-vmm. */
  readonly runner: string
}

interface Series {
  readonly launches: number
  readonly isRestored: boolean
  readonly until: 'started' | 'ready'
  readonly sampled: boolean
}

async function series(
  { machine, image, runner }: Bench,
  { launches, isRestored, ...how }: Series,
): Promise<readonly Watched[]> {
  const template = isRestored ? machine.template : null
  const found: Watched[] = []
  for (let count = 0; count < launches; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one machine at a time
    const prepared = await prepare(machine, { args: IDLE, image, template })
    // oxlint-disable-next-line no-await-in-loop -- one machine at a time
    found.push(await watchVmm({ runner, machine, ...how }, prepared))
  }
  return found
}

function overhead(kind: string, watched: readonly Watched[]): readonly Figure[] {
  const kib = watched.map(({ samples }) => samples.map((sample) => sample.overhead_kib))
  return [
    figure(`vmm.overhead.${kind}`, 'KiB', kib.flat()),
    figure(
      `vmm.overhead_peak.${kind}`,
      'KiB',
      kib.map((one) => Math.max(...one)),
    ),
  ]
}

const started = (watched: readonly Watched[]): readonly number[] =>
  watched.map(({ started_ms }) => started_ms)
const ready = (watched: readonly Watched[]): readonly number[] =>
  watched.map(({ ready_ms }) => ready_ms)

async function cold(bench: Bench): Promise<readonly Figure[]> {
  const run = (how: Series): Promise<readonly Watched[]> => series(bench, how)
  const none = { isRestored: false, sampled: false } as const
  const first = await run({ ...none, launches: FIRST_RUNS, until: 'started' })
  const booted = await run({ ...none, launches: COLD_BOOTS, until: 'ready', sampled: true })
  return [
    figure('vmm.first_run.cold', 'ms', started(first)),
    figure('vmm.ready.cold', 'ms', ready(booted)),
    ...overhead('cold', booted),
  ]
}

async function restored(bench: Bench): Promise<readonly Figure[]> {
  const run = (how: Series): Promise<readonly Watched[]> => series(bench, how)
  const all = { isRestored: true, until: 'ready' } as const
  const timed = await run({ ...all, launches: RESTORES, sampled: false })
  const sampled = await run({ ...all, launches: SAMPLED_RESTORES, sampled: true })
  return [
    figure('vmm.first_run.restored', 'ms', started(timed)),
    figure('vmm.ready.restored', 'ms', ready(timed)),
    ...overhead('restored', sampled),
  ]
}

interface Launched {
  readonly answered: number
  readonly ready: number
  readonly output: number
}

/** One launch through spawn, as the agent makes it: milliseconds from before its record is written. */
async function launch({ machine, image }: Bench): Promise<Launched> {
  const began = nowUs()
  const running = await start(machine, { args: HELLO, image })
  const since = (): number => (nowUs() - began) / US_PER_MS
  const answered = since()
  const isReady = new Promise<number>((resolve) => {
    running.stream.on('event', (event) => {
      if (event.kind === 'started') resolve(since())
    })
  })
  await running.says(/hello/u)
  const output = since()
  const readyAt = await isReady
  await running.exit()
  return { answered, ready: readyAt, output }
}

async function throughSpawn(bench: Bench): Promise<readonly Figure[]> {
  const found: Launched[] = []
  for (let count = 0; count < LAUNCHES; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one machine at a time
    found.push(await launch(bench))
  }
  return [
    figure(
      'spawn.answered',
      'ms',
      found.map((one) => one.answered),
    ),
    figure(
      'spawn.ready',
      'ms',
      found.map((one) => one.ready),
    ),
    figure(
      'spawn.output',
      'ms',
      found.map((one) => one.output),
    ),
  ]
}

/** Needs root, a KVM and gcc. @param classOf is told the class of KVM as spawn sees it */
export async function measureVmm(
  folder: string,
  classOf: (kvm: 'software' | 'hardware' | null) => void,
): Promise<readonly Figure[]> {
  const machine = await openMachine()
  try {
    classOf(machine.host.kvm)
    const image = await buildDisk(path.join(folder, 'busybox'), busyboxTar())
    const bench = { machine, image, runner: buildRunner(folder) }
    return [...(await cold(bench)), ...(await restored(bench)), ...(await throughSpawn(bench))]
  } finally {
    await machine.close()
  }
}
