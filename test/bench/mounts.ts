/** How long spawn takes to jail a VMM and execute it, beside many mounts of the host's. */
import type { Machine, SpawnHost } from '../system/harness.ts'
import { papers, prepare, submit } from '../system/launch.ts'
import { IDLE } from './busybox.ts'
import { type Figure, figure } from './figures.ts'
import { nowUs } from './timing.ts'

const LAUNCHES = 20
const US_PER_MS = 1000
/** As a host with many containers has them (Firecracker's own test goes up to as many). */
const MOUNTS = 500

/** Executes the command that follows in a mount namespace with so many more mounts. */
const among = (mounts: number, folder: string): readonly string[] => {
  const script = `for n in $(seq ${mounts}); do mkdir -p ${folder}/$n; mount --bind /var ${folder}/$n; done; exec "$@"`
  const shell = ['/usr/bin/env', 'PATH=/usr/sbin:/usr/bin', '/bin/sh', '-ec', script, 'sh']
  return ['/usr/bin/unshare', '--mount', '--propagation', 'private', '--', ...shell]
}

/** Milliseconds from the request to its answer: by then the VMM was executed in its jail. */
async function launch(machine: Machine, on: SpawnHost): Promise<number> {
  const prepared = await prepare(machine, { args: IDLE, on, template: null })
  const given = await papers(machine, prepared)
  const began = nowUs()
  const running = await submit(prepared, given)
  const answered = nowUs()
  await on.spawn.kill(running.pod)
  await running.exit()
  await on.spawn.forget(running.pod)
  return (answered - began) / US_PER_MS
}

/** Launches on both hosts in turn, so that what disturbs one disturbs the other. */
export async function measureMounts(machine: Machine): Promise<readonly Figure[]> {
  const few = await machine.another('few-mounts', {})
  const many = await machine.another('many-mounts', {}, among(MOUNTS, machine.place('mounts')))
  const found: { readonly few: number; readonly many: number }[] = []
  for (let count = 0; count < LAUNCHES; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one machine at a time
    found.push({ few: await launch(machine, few), many: await launch(machine, many) })
  }
  const of = (name: string, times: readonly number[]): Figure =>
    figure(`spawn.jailed.${name}`, 'ms', times)
  return [
    of(
      'mounts_0',
      found.map((one) => one.few),
    ),
    of(
      `mounts_${MOUNTS}`,
      found.map((one) => one.many),
    ),
  ]
}
