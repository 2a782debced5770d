/** Level container beside runc by itself and podman, in turn: start, exec, stop, and what goes to the log. */
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { type Machine, openMachine } from '../system/harness.ts'
import { openOurs } from './containers/ours.ts'
import { FLOOD, FLOOD_BYTES, HELLO, imageTar, type Peer, TRUE } from './containers/peer.ts'
import { noPodman, openPodman } from './containers/podman.ts'
import { openRunc } from './containers/runc.ts'
import { type Figure, figure } from './figures.ts'
import type { Opened } from './opened.ts'
import { elapsedUs, nowUs } from './timing.ts'

const ROUNDS = 20
const FLOODS = 3
const US_PER_MS = 1000

/** One container's life, in milliseconds. */
interface Life {
  readonly start: number
  readonly exec: number
  readonly stop: number
}

async function life(peer: Peer): Promise<Life> {
  const began = nowUs()
  const started = await peer.start(HELLO)
  const start = (nowUs() - began) / US_PER_MS
  const exec = (await elapsedUs(() => started.exec(TRUE))) / US_PER_MS
  const stop = (await elapsedUs(() => started.stop())) / US_PER_MS
  return { start, exec, stop }
}

/** MB/s, which is bytes in a microsecond. */
const flood = async (peer: Peer): Promise<number> =>
  FLOOD_BYTES / (await elapsedUs(() => peer.run(FLOOD)))

/** `count` rounds, in each of which all take their turn, so that what the host does meanwhile meets all alike. */
async function inTurn<T>(
  peers: readonly Peer[],
  count: number,
  work: (peer: Peer) => Promise<T>,
): Promise<ReadonlyMap<Peer, readonly T[]>> {
  const found = new Map<Peer, T[]>(peers.map((peer) => [peer, []]))
  for (let round = 0; round < count; round += 1) {
    // oxlint-disable-next-line no-await-in-loop -- what runs beside a measurement is measured too
    for (const [peer, samples] of found) samples.push(await work(peer))
  }
  return found
}

async function measure(peers: readonly Peer[]): Promise<readonly Figure[]> {
  await inTurn(peers, 1, life) // files are in memory then
  const lives = await inTurn(peers, ROUNDS, life)
  const floods = await inTurn(peers, FLOODS, flood)
  return peers.flatMap((peer) => {
    const of = (part: keyof Life): readonly number[] =>
      (lives.get(peer) ?? []).map((one) => one[part])
    return [
      ...(['start', 'exec', 'stop'] as const).map((part) =>
        figure(`container.${part}.${peer.name}`, 'ms', of(part)),
      ),
      figure(`container.log.${peer.name}`, 'MB/s', floods.get(peer) ?? []),
    ]
  })
}

async function openPeers(machine: Machine, folder: string): Promise<readonly Peer[]> {
  const place = (name: string): string => {
    mkdirSync(path.join(folder, name), { recursive: true })
    return path.join(folder, name)
  }
  const ours = await openOurs(machine, place('ours'))
  const podman = noPodman() === null ? [openPodman(path.join(folder, 'podman'), imageTar())()] : []
  return [ours, openRunc(place('runc')), ...podman]
}

/** Needs root and runc; podman is measured where it is installed. */
export async function openContainers(folder: string): Promise<Opened> {
  const machine = await openMachine('container')
  try {
    const peers = await openPeers(machine, folder)
    return { measure: () => measure(peers), close: () => machine.close() }
  } catch (error) {
    await machine.close()
    throw error
  }
}
