/** Virtual machines: the VMM by itself, and a launch through casemate-spawn. */
import path from 'node:path'
import { type Machine, openMachine } from '../system/harness.ts'
import { buildDisk, type DiskFile } from '../system/images.ts'
import { prepare, start } from '../system/launch.ts'
import { busyboxTar, IDLE } from './busybox.ts'
import { measureCrowd } from './crowd.ts'
import { type Figure, figure } from './figures.ts'
import { measureMounts } from './mounts.ts'
import type { Opened } from './opened.ts'
import { nowUs } from './timing.ts'
import { buildRunner, type Watched, watchVmm } from './vmm/run.ts'

type KvmClass = 'software' | 'hardware'

/** Only as far as the guest's first instruction, which takes no time in any KVM. */
const FIRST_RUNS = 5
/** In software KVM a boot takes a minute or more, and the start of an app many seconds. */
const BOOTS = { software: 1, hardware: 5 } as const
const LAUNCHES = { software: 3, hardware: 5 } as const
const US_PER_MS = 1000

/** What every launch here is made of. */
interface Bench {
  readonly machine: Machine
  readonly kvm: KvmClass
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
  const template = isRestored ? await machine.template : null
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

async function byHand(bench: Bench, kind: 'cold' | 'restored'): Promise<readonly Figure[]> {
  const isRestored = kind === 'restored'
  const launches = (isRestored ? LAUNCHES : BOOTS)[bench.kvm]
  const first = await series(bench, {
    launches: FIRST_RUNS,
    isRestored,
    until: 'started',
    sampled: false,
  })
  const whole = await series(bench, { launches, isRestored, until: 'ready', sampled: true })
  const started = first.map(({ started_ms }) => started_ms)
  const ready = whole.map(({ ready_ms }) => ready_ms)
  return [
    figure(`vmm.first_run.${kind}`, 'ms', started),
    figure(`vmm.ready.${kind}`, 'ms', ready),
    ...overhead(kind, whole),
  ]
}

interface Launched {
  readonly answered: number
  readonly ready: number
}

/** One launch through spawn, as the agent makes it: milliseconds from before its spec is made. */
async function launch({ machine, image }: Bench): Promise<Launched> {
  const began = nowUs()
  const running = await start(machine, { args: IDLE, image })
  const since = (): number => (nowUs() - began) / US_PER_MS
  const answered = since()
  const ready = await new Promise<number>((resolve, reject) => {
    running.stream.on('event', (event) => {
      if (event.kind === 'started') resolve(since())
    })
    running.stream.once('close', () => reject(new Error('the pod ended before its app started')))
  })
  await machine.spawn.kill(running.pod)
  await running.exit()
  return { answered, ready }
}

async function throughSpawn(bench: Bench): Promise<readonly Figure[]> {
  const found: Launched[] = []
  for (let count = 0; count < LAUNCHES[bench.kvm]; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one machine at a time
    found.push(await launch(bench))
  }
  const answered = found.map((one) => one.answered)
  const ready = found.map((one) => one.ready)
  return [figure('spawn.answered', 'ms', answered), figure('spawn.ready', 'ms', ready)]
}

async function measure(bench: Bench): Promise<readonly Figure[]> {
  return [
    ...(await byHand(bench, 'cold')),
    ...(await byHand(bench, 'restored')),
    ...(await throughSpawn(bench)),
    ...(await measureMounts(bench.machine)),
    ...(await measureCrowd(bench.machine, bench.image)),
  ]
}

/** Needs root, a KVM and gcc. @param classOf is told the class of KVM as spawn sees it */
export async function openVmm(folder: string, classOf: (kvm: KvmClass) => void): Promise<Opened> {
  const machine = await openMachine()
  try {
    const { kvm } = machine.host
    if (kvm === null) throw new Error('spawn finds no KVM to use')
    classOf(kvm)
    const image = await buildDisk(path.join(folder, 'busybox'), busyboxTar())
    const bench = { machine, kvm, image, runner: buildRunner(folder) }
    return { measure: () => measure(bench), close: () => machine.close() }
  } catch (error) {
    await machine.close()
    throw error
  }
}
