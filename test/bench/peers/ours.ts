/** casemate-vmm as spawn starts it, but for the jail: ticket, checks, filters and verified disks are all there. */
import type { Template } from '../../../native/spawn-answers.ts'
import type { Machine } from '../../system/harness.ts'
import type { DiskFile } from '../../system/images.ts'
import { type Loose, prepare } from '../../system/launch.ts'
import { IDLE } from '../busybox.ts'
import { type Instead, withPlaces } from '../vmm/run.ts'
import type { Parts } from './parts.ts'
import type { Peer, Startable } from './peer.ts'
import { startVm } from './vm.ts'

interface Wish {
  readonly machine: Machine
  readonly template: Template | null
  readonly bend?: (spec: Loose) => void
  readonly instead: Instead
}

/** A template whose init is that of `disk`, by a spawn that has it for its own; kept for the next run. */
async function templateOf(
  machine: Machine,
  name: string,
  disk: DiskFile,
): Promise<{ readonly machine: Machine; readonly template: Template; readonly instead: Instead }> {
  const init = { init: disk.path, init_verity: { ...disk.verity } }
  const host = await machine.another(name, init)
  const { template } = await host.spawn.template(1, 128)
  return { machine: { ...machine, ...host }, template, instead: { init: disk.path } }
}

/** Another init disk and a word for its init. */
const withInit =
  (disk: DiskFile, word: string) =>
  (spec: Loose): void => {
    const of = spec['machine'] as { cmdline: string }
    of.cmdline = `${of.cmdline.replace('reboot=t', 'reboot=k')} ${word}`
    const [, ...others] = spec['descriptors'] as readonly Loose[]
    const init = { role: 'init', access: 'read', size: disk.size, verity: { ...disk.verity } }
    spec['descriptors'] = [init, ...others]
  }

/** Boots or finds two templates. */
export async function openOurs(machine: Machine, parts: Parts): Promise<Peer> {
  const { first, answering } = parts
  const [answer, idle] = await Promise.all([
    templateOf(machine, 'answering', answering),
    templateOf(machine, 'idle', parts.idle),
  ])
  const launch = async (wish: Wish): Promise<Startable> => {
    const { template, bend, instead } = wish
    const on = wish.machine
    const prepared = await prepare(on, { args: IDLE, image: answering, template }, bend)
    return () =>
      withPlaces(
        on,
        prepared,
        (places) =>
          startVm(parts.runVmm, [on.artifacts.vmm], ['ignore', 'pipe', 'inherit', ...places]),
        instead,
      )
  }
  const cold = (word: string): Promise<Startable> => {
    const bend = withInit(answering, word)
    return launch({ machine, template: null, bend, instead: { init: answering.path } })
  }
  return {
    memory: /^\/memfd:casemate-memory\b/u,
    first: () =>
      launch({
        machine,
        template: null,
        bend: (spec) => {
          spec['kernel'] = { digest: first.digest, size: first.bytes.length }
        },
        instead: { kernel: first.bytes },
      }),
    boot: () => cold('act=reset'),
    bootIdle: () => cold('act=idle'),
    answer: () => launch(answer),
    idle: () => launch(idle),
  }
}
