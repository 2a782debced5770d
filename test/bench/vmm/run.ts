/** A VMM started by hand, with the papers and descriptors that spawn would give it, and watched. */
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { memfdSealed } from '../../../native/addon.ts'
import { parseSmaps, type Sample, sampleOf } from '../../../native/self-test/smaps.ts'
import { documentOf, scratchFile } from '../../system/by-hand.ts'
import type { Machine } from '../../system/harness.ts'
import { type Prepared, papers, withFiles } from '../../system/launch.ts'

/** Kinds of control messages (docs/formats.md section 6). */
const STARTED = 1
const READY = 2
const FAILURE = 4
const LAST = { started: STARTED, ready: READY } as const

const NS_PER_MS = 1_000_000
const SAMPLE_MS = 10
/** How long a sampled VMM is looked at after the last message. */
const SETTLE_MS = 1000

/** What a VMM said, in milliseconds after its exec, and how large it was. */
export interface Watched {
  /** STARTED: threads and filters stand, the first KVM_RUN is next. */
  readonly started_ms: number
  /** READY: the guest has taken its configuration and the app runs. NaN when not waited for. */
  readonly ready_ms: number
  /** Oldest first; empty without sampling. */
  readonly samples: readonly Sample[]
}

/** Compiles run-vmm.c. */
export function buildRunner(folder: string): string {
  const program = path.join(folder, 'run-vmm')
  execFileSync('gcc', ['-O1', '-o', program, path.join(import.meta.dirname, 'run-vmm.c')])
  return program
}

/** A memfd as spawn holds it, opened anew for reading. */
function memfdOf(machine: Machine, name: string): number {
  const folder = `/proc/${machine.program.pid}/fd`
  const found = readdirSync(folder).find((fd) =>
    readlinkSync(path.join(folder, fd)).startsWith(`/memfd:${name} `),
  )
  if (found === undefined) throw new Error(`spawn holds no memfd ${name}`)
  return openSync(path.join(folder, found), 'r')
}

/** A memfd of its own, opened for reading alone as the VMM wants it. */
function sealedFile(bytes: Buffer): number {
  const fd = memfdSealed('casemate-kernel', bytes)
  try {
    return openSync(`/proc/self/fd/${fd}`, 'r')
  } finally {
    closeSync(fd)
  }
}

/** The launch document of spawn for these papers, sealed. */
async function documentFd(machine: Machine, prepared: Prepared): Promise<number> {
  const document = documentOf(machine, await papers(machine, prepared))
  return memfdSealed('launch-document', document)
}

export type Place = number | 'ignore'

/** Files that stand in for the host's own; the launch's spec must name them. */
export interface Instead {
  readonly kernel?: Buffer
  /** Path of an init disk. */
  readonly init?: string
}

/** Descriptors 6 to 10; what this launch has no use for is closed. */
function openRoles(machine: Machine, isRestored: boolean, instead: Instead): readonly Place[] {
  const kvm = openSync('/dev/kvm', 'r+')
  const init = openSync(instead.init ?? machine.artifacts.init, 'r')
  if (isRestored) {
    const [state, memory] = ['casemate-state', 'casemate-memory']
    return [kvm, 'ignore', init, memfdOf(machine, state), memfdOf(machine, memory)]
  }
  const { kernel } = instead
  const image = kernel === undefined ? memfdOf(machine, 'casemate-kernel') : sealedFile(kernel)
  return [kvm, image, init, 'ignore', 'ignore']
}

/** Descriptors 3 to 13 of a launch, but for those that run-vmm makes; closed again after `use`. */
export async function withPlaces<T>(
  machine: Machine,
  prepared: Prepared,
  use: (places: readonly Place[]) => Promise<T>,
  instead: Instead = {},
): Promise<T> {
  const document = await documentFd(machine, prepared)
  const roles = openRoles(machine, prepared.template !== null, instead)
  const scratch = openSync(scratchFile(machine, prepared), 'r+')
  try {
    return await withFiles(prepared, ({ image, log }) =>
      use([document, 'ignore', 'ignore', ...roles, image, scratch, log]),
    )
  } finally {
    for (const fd of [document, scratch, ...roles]) if (fd !== 'ignore') closeSync(fd)
  }
}

interface Watching {
  readonly runner: string
  readonly machine: Machine
  /** The message after which the VMM is ended. */
  readonly until: 'started' | 'ready'
  /** Whether its memory is looked at; every look takes a little of the time that is measured. */
  readonly sampled: boolean
}

/** Runs the launch as far as wanted. @throws when the VMM failed, or ended before */
export const watchVmm = (watching: Watching, prepared: Prepared): Promise<Watched> =>
  withPlaces(watching.machine, prepared, (places) => follow(watching, prepared, places))

/** Hears what the runner says, and looks at the VMM's memory if asked to. */
class Watcher {
  readonly #watching: Watching
  readonly #guestBytes: number
  readonly #end: () => void
  readonly #said = new Map<number, number>()
  readonly #samples: Sample[] = []
  #timer: NodeJS.Timeout | undefined
  #failure: Error | null = null

  constructor(watching: Watching, guestBytes: number, end: () => void) {
    this.#watching = watching
    this.#guestBytes = guestBytes
    this.#end = end
  }

  take(line: string): void {
    const [word, first = '', ns = '', ...text] = line.split(' ')
    if (word === 'pid' && this.#watching.sampled) {
      this.#timer = setInterval(() => this.#look(`/proc/${first}/smaps`), SAMPLE_MS)
    }
    if (word === 'said') this.#hear(Number(first), Number(ns) / NS_PER_MS, text.join(' '))
  }

  #hear(kind: number, at: number, text: string): void {
    this.#said.set(kind, at)
    if (kind === FAILURE) this.#fail(new Error(`the VMM failed: ${text}`))
    if (kind !== LAST[this.#watching.until]) return
    setTimeout(this.#end, this.#watching.sampled ? SETTLE_MS : 0)
  }

  #look(place: string): void {
    try {
      const text = readFileSync(place, 'utf8')
      if (text !== '') this.#samples.push(sampleOf(parseSmaps(text), this.#guestBytes))
    } catch (error) {
      // A process that has ended has no smaps, and the runner is about to say so.
      if (error instanceof RangeError) this.#fail(error)
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error
    this.#end()
  }

  /** What was found, when the runner has ended. */
  result(): Watched {
    clearInterval(this.#timer)
    if (this.#failure !== null) throw this.#failure
    const { until, sampled } = this.#watching
    const [started_ms, ready_ms] = [this.#said.get(STARTED), this.#said.get(READY)]
    if (started_ms === undefined || !this.#said.has(LAST[until])) {
      throw new Error(
        `the VMM ended and had said ${[...this.#said.keys()].join(', ') || 'nothing'}`,
      )
    }
    if (sampled && this.#samples.at(-1)?.has_guest !== true) {
      throw new Error('guest memory was not found among the mappings of the VMM')
    }
    return { started_ms, ready_ms: ready_ms ?? Number.NaN, samples: this.#samples }
  }
}

async function follow(
  watching: Watching,
  prepared: Prepared,
  places: readonly Place[],
): Promise<Watched> {
  const child = spawn(watching.runner, [watching.machine.artifacts.vmm], {
    stdio: ['ignore', 'pipe', 'inherit', ...places],
    env: {},
  })
  if (child.stdout === null) throw new Error('the runner has no standard output')
  const guestBytes = prepared.plan.memoryMib * 2 ** 20
  const watcher = new Watcher(watching, guestBytes, () => void child.kill('SIGTERM'))
  for await (const line of createInterface({ input: child.stdout })) watcher.take(line)
  return watcher.result()
}
