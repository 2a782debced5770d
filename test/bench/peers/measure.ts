/** The measurements, each of both programs in turn, so that what disturbs one disturbs the other. */
import { readFileSync } from 'node:fs'
import { parseSmaps, sampleOf } from '../../../native/self-test/smaps.ts'
import { nowUs } from '../timing.ts'
import { type Both, type Pair, pair } from './pairs.ts'
import { MEMORY_MIB, type Peer, type Startable } from './peer.ts'
import { quiet, settled, type Vm } from './vm.ts'

export interface Peers {
  readonly ours: Peer
  readonly theirs: Peer
}

const US_PER_S = 1_000_000
const GUEST_BYTES = MEMORY_MIB * 2 ** 20
/**
 * Guests that start beside each other before they are stopped: in software KVM the timers of a quiet one take some
 * hundredths of a core, and a hundred of them would leave nothing to the next.
 */
const WAVE = 15
const WAVES_MAX = 5
/**
 * How the machines here end: by the reset they ask for. Restored ones ask by a triple fault, which software KVM cannot
 * run, and at which Firecracker with an API ends with 1.
 */
const RESET =
  /^(?:status 0|restored, status (?:0|256)|the guest reset.*|the guest's processor reached.*)$/u

const alternately = async (
  count: number,
  peers: Peers,
  one: (peer: Peer) => Promise<number>,
): Promise<Both> => {
  const both = { ours: [] as number[], theirs: [] as number[] }
  for (let run = 0; run < count; run += 1) {
    both.ours.push(await one(peers.ours))
    both.theirs.push(await one(peers.theirs))
  }
  return both
}

/** Milliseconds from exec to the end. @throws when it ended otherwise than by a reset */
async function life(start: Startable): Promise<number> {
  const vm = await start()
  const ms = await vm.ended
  if (!RESET.test(vm.why)) throw new Error(`a virtual machine ended otherwise: ${vm.why}`)
  return ms
}

export const measureFirst = async (peers: Peers, count: number): Promise<readonly Pair[]> => [
  pair('first', 'ms', await alternately(count, peers, async (peer) => life(await peer.first()))),
]

export const measureBoot = async (peers: Peers, count: number): Promise<readonly Pair[]> => [
  pair('boot', 'ms', await alternately(count, peers, async (peer) => life(await peer.boot()))),
]

export const measureAnswer = async (peers: Peers, count: number): Promise<readonly Pair[]> => [
  pair('answer', 'ms', await alternately(count, peers, async (peer) => life(await peer.answer()))),
]

/** KiB resident that are not the guest's memory. @throws when the guest's memory is not found */
function overheadOf({ memory }: Peer, { pid }: Vm): number {
  const text = readFileSync(`/proc/${pid}/smaps`, 'utf8')
  const { overhead_kib, has_guest } = sampleOf(parseSmaps(text), GUEST_BYTES, memory)
  if (!has_guest) throw new Error('guest memory was not found among the mappings of a VMM')
  return overhead_kib
}

/** One guest each, until they are quiet, beside each other: memory does not depend on time. */
async function overhead(peers: Peers, start: (peer: Peer) => Promise<Startable>): Promise<Both> {
  const [ours, theirs] = await Promise.all([
    start(peers.ours).then((one) => one()),
    start(peers.theirs).then((one) => one()),
  ])
  try {
    await quiet([ours, theirs])
    return { ours: [overheadOf(peers.ours, ours)], theirs: [overheadOf(peers.theirs, theirs)] }
  } finally {
    await Promise.all([ours.kill(), theirs.kill()])
  }
}

export const measureOverhead = async (peers: Peers): Promise<readonly Pair[]> => [
  pair('overhead.booted', 'KiB', await overhead(peers, (peer) => peer.bootIdle())),
  pair('overhead.restored', 'KiB', await overhead(peers, (peer) => peer.idle())),
]

const field = (name: string, place: string): number => {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'mu').exec(readFileSync(place, 'utf8'))
  return Number(found?.[1])
}

/** KiB of each of so many quiet guests. */
interface Crowd {
  readonly pss: readonly number[]
  readonly rss: readonly number[]
}

/** KiB; null of a guest that has ended: a process without memory says nothing of it. */
function residentOf(name: 'Pss' | 'Rss', { pid }: Vm): number | null {
  try {
    return field(name, `/proc/${pid}/smaps_rollup`)
  } catch {
    return null
  }
}

const alive = (vms: readonly Vm[]): readonly Vm[] =>
  vms.filter((vm) => residentOf('Rss', vm) !== null)

const all = (name: 'Pss' | 'Rss', vms: readonly Vm[]): readonly number[] =>
  vms.map((vm) => residentOf(name, vm) ?? 0)

/**
 * Starts so many guests more, waits until they take no more memory, and stops them where they are. One that ends by
 * itself meanwhile, as in software KVM one of a hundred Firecrackers does now and then, is replaced, aloud.
 * @throws when they do so again and again
 */
async function grow(peer: Peer, count: number, vms: Vm[]): Promise<void> {
  let wave: Vm[] = []
  for (let waves = 0; wave.length < count; waves += 1) {
    if (waves === WAVES_MAX) throw new Error('guests that should wait end by themselves')
    while (wave.length < count) {
      const vm = await (await peer.idle())()
      vms.push(vm)
      wave.push(vm)
    }
    const guests = wave
    await settled(() => all('Rss', guests).reduce((sum, kib) => sum + kib, 0))
    wave = [...alive(guests)]
    for (const { why } of guests.filter((vm) => !wave.includes(vm))) {
      process.stderr.write(`a guest ended by itself: ${why}\n`)
    }
  }
  for (const { pid } of wave) process.kill(pid, 'SIGSTOP')
}

async function crowds(peer: Peer, sizes: readonly number[]): Promise<readonly Crowd[]> {
  const vms: Vm[] = []
  const found: Crowd[] = []
  try {
    for (const size of sizes) {
      for (let have = alive(vms).length; have < size; have = alive(vms).length) {
        await grow(peer, Math.min(WAVE, size - have), vms)
      }
      const crowd = alive(vms)
      found.push({ pss: all('Pss', crowd), rss: all('Rss', crowd) })
    }
    return found
  } finally {
    await Promise.all(vms.map((vm) => vm.kill()))
  }
}

/** One program after the other: guests of both at once would share the memory of neither. */
export async function measureCrowds(
  peers: Peers,
  sizes: readonly number[],
): Promise<readonly Pair[]> {
  const ours = await crowds(peers.ours, sizes)
  const theirs = await crowds(peers.theirs, sizes)
  return sizes.flatMap((size, at) => {
    const [one, other] = [ours[at], theirs[at]]
    if (one === undefined || other === undefined) return []
    return [
      pair(`idle.pss.${size}`, 'KiB', { ours: one.pss, theirs: other.pss }),
      pair(`idle.rss.${size}`, 'KiB', { ours: one.rss, theirs: other.rss }),
    ]
  })
}

/** Virtual machines that answered, a second, with `atOnce` of them at a time. */
async function rate(peer: Peer, count: number, atOnce: number): Promise<number> {
  const waiting = await Promise.all(Array.from({ length: count }, () => peer.answer()))
  const began = nowUs()
  const worker = async (): Promise<void> => {
    for (let start = waiting.pop(); start !== undefined; start = waiting.pop()) await life(start)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return (count * US_PER_S) / (nowUs() - began)
}

/** @param count of one round, few enough that no ticket is too old */
export const measureRate = async (
  peers: Peers,
  rounds: number,
  count: number,
): Promise<readonly Pair[]> => [
  pair('rate.2', 'VMs/s', await alternately(rounds, peers, (peer) => rate(peer, count, 2))),
]
