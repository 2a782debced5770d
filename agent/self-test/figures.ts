/** An ordinary guest on this host: booted into a template, restored a few times, and measured. */
import { closeSync, readFileSync } from 'node:fs'
import { followPodLog } from '../../native/pod-log-follow.ts'
import type { PrivateSpawn } from '../../native/self-test/private-spawn.ts'
import { parseSmaps, sampleOf } from '../../native/self-test/smaps.ts'
import type { Template } from '../../native/spawn-answers.ts'
import type { Artifacts } from '../../native/up/artifacts.ts'
import { type Guest, MEMORY_MIB, startGuest, type TestLog, VCPUS } from './guests.ts'

/** The median of so many; in software KVM each takes its time. */
const RESTORES = { software: 1, hardware: 5 } as const
/** Where it takes more, something is wrong. */
const BOOT_MS = 600_000
const OUTPUT_MS = 600_000
const SAID = 'hello\n'

/** Medians; milliseconds with one decimal. */
export interface Figures {
  /** From the request for a template: jail, cold boot to HELLO, snapshot, digests. null: it was kept. */
  readonly template_ms: number | null
  /** From a launch's request to spawn's answer: ticket, descriptors, scratch disk, jail, exec. */
  readonly jail_ms: number
  /** From a launch's request to the app's first output, restored from the template. */
  readonly first_output_ms: number
  /** Memory of the VMM that is not its guest's, once the app runs. */
  readonly overhead_kib: number
  /** The most that guest and VMM together took of the host, as the kernel counts it. */
  readonly peak_mib: number | null
}

interface Restored {
  readonly jail: number
  readonly output: number
  readonly overhead: number
  readonly peak: number | null
}

const tenths = (ms: number): number => Math.round(ms * 10) / 10

const median = (all: readonly number[]): number =>
  all.toSorted((one, other) => one - other)[Math.floor(all.length / 2)] ?? Number.NaN

/** Waits until the app has said its word. @throws with how the guest ended in its place */
async function heard(guest: Guest): Promise<void> {
  const over = AbortSignal.timeout(OUTPUT_MS)
  const options = { since: 0, follow: true, ended: over, gone: over }
  let text = ''
  for await (const record of followPodLog(guest.logPath, options)) {
    if (record.kind === 'record' && record.stream === 'stdout') text += record.payload.toString()
    if (text.startsWith(SAID)) return
  }
  throw new Error(`the app of a restored guest said ${JSON.stringify(text)} in ${OUTPUT_MS} ms`)
}

interface Call {
  readonly spawn: PrivateSpawn
  readonly log: TestLog
  readonly artifacts: Artifacts
  readonly directory: string
}

async function restore(call: Call, template: Template): Promise<Restored> {
  const began = performance.now()
  const guest = await startGuest({ ...call, template, bootMs: BOOT_MS })
  try {
    const jail = performance.now() - began
    await heard(guest)
    const output = performance.now() - began
    const mappings = parseSmaps(readFileSync(`/proc/${guest.pid}/smaps`, 'utf8'))
    const { overhead_kib: overhead } = sampleOf(mappings, MEMORY_MIB * 2 ** 20)
    const { memory_peak_bytes: peak } = await call.spawn.client.usage(guest.pod)
    await call.spawn.client.kill(guest.pod)
    await guest.exit()
    return { jail, output, overhead, peak }
  } finally {
    closeSync(guest.stream)
  }
}

/** @throws SpawnError, or an error that says what did not work */
export async function measure(call: Call): Promise<Figures> {
  const began = performance.now()
  const { client, host } = call.spawn
  const { template, kept } = await client.template(VCPUS, MEMORY_MIB)
  const booted = performance.now() - began
  const restored: Restored[] = []
  for (let count = 0; count < RESTORES[host.kvm ?? 'software']; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other, or they slow each other down
    restored.push(await restore(call, template))
  }
  const peaks = restored.map(({ peak }) => peak).filter((peak) => peak !== null)
  return {
    template_ms: kept ? null : tenths(booted),
    jail_ms: tenths(median(restored.map(({ jail }) => jail))),
    first_output_ms: tenths(median(restored.map(({ output }) => output))),
    overhead_kib: median(restored.map(({ overhead }) => overhead)),
    peak_mib: peaks.length === 0 ? null : Math.ceil(Math.max(...peaks) / 2 ** 20),
  }
}
