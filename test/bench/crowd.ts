/** How many quiet pods a GiB of the host holds: what the kernel charges to each, all that it keeps for it included. */
import { setTimeout as pause } from 'node:timers/promises'
import type { Machine } from '../system/harness.ts'
import type { DiskFile } from '../system/images.ts'
import { type Running, start } from '../system/launch.ts'
import { IDLE } from './busybox.ts'
import { type Figure, figure } from './figures.ts'

const PODS = 8
const BYTES_PER_KIB = 1024
const KIB_PER_GIB = 2 ** 20
const LOOK_MS = 1000
/** Looks without a change of more than a hundredth: then a guest rests. */
const QUIET_LOOKS = 5
const SHARE = 0.01

async function kib(machine: Machine, { pod }: Running): Promise<number> {
  const { memory_bytes: bytes } = await machine.spawn.usage(pod)
  if (bytes === null) throw new Error('this kernel does not count the memory of groups')
  return bytes / BYTES_PER_KIB
}

/** KiB of a pod whose app sleeps, when it takes no more. */
async function settled(machine: Machine, running: Running): Promise<number> {
  let last = await kib(machine, running)
  for (let looks = 0; looks < QUIET_LOOKS; looks += 1) {
    // oxlint-disable-next-line no-await-in-loop -- a guest is watched over time
    await pause(LOOK_MS)
    // oxlint-disable-next-line no-await-in-loop -- as above
    const now = await kib(machine, running)
    if (Math.abs(now - last) > last * SHARE) looks = -1
    last = now
  }
  return last
}

/** Pods of the machine's own level, all from one template where there is one. */
export async function measureCrowd(machine: Machine, image: DiskFile): Promise<readonly Figure[]> {
  const pods: Running[] = []
  try {
    for (let count = 0; count < PODS; count += 1) {
      // oxlint-disable-next-line no-await-in-loop -- a start at a time, as in software KVM each takes a processor
      pods.push(await start(machine, { args: IDLE, image }))
    }
    const sizes = await Promise.all(pods.map((pod) => settled(machine, pod)))
    return [
      figure(`pods.memory.${machine.level}`, 'KiB', sizes),
      figure(
        `pods.per_gib.${machine.level}`,
        'pods',
        sizes.map((size) => KIB_PER_GIB / size),
      ),
    ]
  } finally {
    await Promise.all(pods.map(({ pod }) => machine.spawn.kill(pod)))
    await Promise.all(pods.map((pod) => pod.exit()))
  }
}
