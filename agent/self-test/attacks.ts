/**
 * Guests that attack from ring 0 (native/vmm/tests/hostile/guest), each in a VMM and a jail as a
 * tenant's pod has them. Either the VMM goes on, or it ends with the cause named here.
 */
import { closeSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { type PrivateSpawn, startPrivateSpawn } from '../../native/self-test/private-spawn.ts'
import type { PodExit } from '../../native/spawn-answers.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import type { Artifacts } from '../../native/up/artifacts.ts'
import { type Guest, MEMORY_MIB, startGuest, type TestLog } from './guests.ts'

export interface Attack {
  /** For the guest: a name and numbers. */
  readonly words: string
  /** For people. */
  readonly what: string
  /** Causes its VMM may end with; none: it goes on. */
  readonly ends: readonly string[]
}

/** A processor that cannot go on: hardware shuts down, an interpreter gives up. */
const DEAD = ['GUEST_GONE', 'GUEST_CRASH']

export const ATTACKS: readonly Attack[] = [
  { words: 'frozen', what: 'registers of a running device', ends: [] },
  { words: 'widths', what: 'registers in every width', ends: [] },
  { words: 'storm 4000', what: 'a storm of doorbells', ends: [] },
  { words: 'greedy', what: '1 GiB of entropy in one request', ends: [] },
  { words: 'flood 20000', what: 'a flood of boot log', ends: [] },
  { words: 'addresses', what: 'addresses of no device', ends: [] },
  { words: 'msr 0 2000', what: 'model-specific registers', ends: [] },
  { words: 'touch', what: 'all of its memory', ends: [] },
  { words: 'beyond 2', what: 'sectors beyond the end of scratch', ends: [] },
  { words: 'read-only 1', what: 'writes to its image', ends: [] },
  { words: 'twice 0', what: 'one descriptor twice', ends: ['DEVICE_QUEUE'] },
  { words: 'loop 8', what: 'a chain that loops', ends: ['DEVICE_QUEUE'] },
  {
    words: 'buffer fffffffffffffff8 10',
    what: 'a buffer where sums wrap',
    ends: ['DEVICE_QUEUE'],
  },
  { words: 'buffer d0004000 8', what: 'a buffer over a device', ends: ['DEVICE_QUEUE'] },
  { words: 'endless', what: 'a chain of 16 GiB', ends: ['DEVICE_QUEUE'] },
  { words: 'frame ff 0', what: 'no frames on the control pipe', ends: ['GUEST_PROTOCOL'] },
  { words: 'overdraw 2', what: 'more credit than a window', ends: ['GUEST_PROTOCOL'] },
  { words: 'triple', what: 'a triple fault', ends: DEAD },
  { words: 'reset fe', what: 'a reset', ends: ['GUEST_GONE'] },
  { words: 'halt', what: 'no word at all', ends: ['BOOT_TIMEOUT'] },
]

export interface Attacked extends Pick<Attack, 'words' | 'what'> {
  /** `goes on`, or how it ended: as `failure DEVICE_QUEUE`. */
  readonly end: string
  /** The sentence of its end, if there is one. */
  readonly text: string | null
  /** The most memory that guest and VMM had at once. */
  readonly peak_mib: number | null
  readonly held: boolean
}

/** Before the words in the image (guest/machine.c, `built_in`), and room behind it. */
const MARK = '@attack: '
const WORDS_MAX = 54
/** What says for which class of KVM a kernel is built (native/spawn/src/assets.rs). */
const SOFTWARE_MARK = 'casemate-softkvm'
/** Until a guest that says nothing is given up, and a VMM that comes to no end at all. */
const BOOT_MS = 300_000
const PATIENCE_MS = 360_000
const LOOK_MS = 50
/** What a VMM may have beside its guest (the spec's own limit is 64 MiB). */
const OVERHEAD_MIB_MAX = 16

/** The image that does what `words` say. */
function kernelOf(artifacts: Artifacts, words: string, isSoftware: boolean): Buffer {
  const image = readFileSync(artifacts.attack)
  const at = image.indexOf(MARK)
  if (at < 0 || words.length > WORDS_MAX) {
    throw new Error(`${artifacts.attack} takes no words: run \`npm run setup\``)
  }
  image.write(`${words} `, at + MARK.length, 'latin1')
  return isSoftware ? Buffer.concat([image, Buffer.from(SOFTWARE_MARK)]) : image
}

/** Rings of a queue that no device has: the guest's own word that it is through (guest/machine.c). */
async function isThrough(spawn: PrivateSpawn, pod: string): Promise<boolean> {
  const { devices } = await spawn.client.metrics(pod)
  return (devices['init']?.['ignored_notifications'] ?? 0) > 0
}

const isGone = (error: unknown): boolean =>
  error instanceof SpawnError && error.code === 'POD_NOT_RUNNING'

/** Whether it came through; false: its VMM ended. */
async function watch(spawn: PrivateSpawn, guest: Guest): Promise<boolean | 'neither'> {
  const until = performance.now() + PATIENCE_MS
  while (performance.now() < until) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- asking again is the point
      if (await isThrough(spawn, guest.pod)) return true
    } catch (error) {
      if (!isGone(error)) throw error
      return false
    }
    // oxlint-disable-next-line no-await-in-loop
    await delay(LOOK_MS)
  }
  return 'neither'
}

async function peakMib(spawn: PrivateSpawn, pod: string): Promise<number | null> {
  try {
    const { memory_peak_bytes: bytes } = await spawn.client.usage(pod)
    return bytes === null ? null : Math.ceil(bytes / 2 ** 20)
  } catch (error) {
    if (isGone(error)) return null
    throw error
  }
}

const told = ({ how, cause }: PodExit): string => `${how} ${cause}`

/** Of a guest whose VMM still answers: it must answer once more, and end as it is told. */
async function judgeLiving(spawn: PrivateSpawn, guest: Guest, attack: Attack): Promise<Attacked> {
  const { words, what } = attack
  const peak = await peakMib(spawn, guest.pod)
  await spawn.client.kill(guest.pod)
  const exit = await guest.exit()
  const small = peak === null || peak <= MEMORY_MIB + OVERHEAD_MIB_MAX
  const held = attack.ends.length === 0 && exit.cause === 'KILLED' && small
  const end = exit.cause === 'KILLED' ? 'goes on' : told(exit)
  return { words, what, end, text: small ? null : 'too much memory', peak_mib: peak, held }
}

async function judge(spawn: PrivateSpawn, guest: Guest, attack: Attack): Promise<Attacked> {
  const { words, what } = attack
  const through = await watch(spawn, guest)
  if (through === true) return await judgeLiving(spawn, guest, attack)
  if (through === 'neither') await spawn.client.kill(guest.pod)
  const exit = await guest.exit()
  const known = exit.how === 'failure' && attack.ends.includes(exit.cause)
  const end = through === 'neither' ? 'came to no end' : told(exit)
  const held = known && through === false
  return { words, what, end, text: exit.text, peak_mib: null, held }
}

export interface AttackCall {
  readonly log: TestLog
  readonly artifacts: Artifacts
  readonly node: string
  readonly isSoftware: boolean
  /** For the attack's own spawn; does not exist yet. */
  readonly directory: string
}

/** Runs one attack, in a spawn of its own whose kernel it is. */
export async function runAttack(call: AttackCall, attack: Attack): Promise<Attacked> {
  const { log, artifacts, node, directory } = call
  const kernel = `${directory}.elf`
  writeFileSync(kernel, kernelOf(artifacts, attack.words, call.isSoftware))
  const spawn = await startPrivateSpawn({ directory, node, artifacts, kernel, vkey: log.vkey })
  try {
    const guest = await startGuest({
      spawn,
      log,
      artifacts,
      directory,
      template: null,
      bootMs: attack.ends.includes('BOOT_TIMEOUT') ? 2000 : BOOT_MS,
    })
    try {
      return await judge(spawn, guest, attack)
    } finally {
      closeSync(guest.stream)
    }
  } finally {
    await spawn.end()
  }
}
