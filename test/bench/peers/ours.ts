/** casemate-vmm as spawn starts it, but for the jail: ticket, checks, filters and verified disks are all there. */
import { readFileSync } from 'node:fs'
import type { Template } from '../../../native/spawn-answers.ts'
import type { PodNetwork } from '../../../policy/nouns/network.ts'
import { networkOf } from '../../native/networks.ts'
import type { Machine } from '../../system/harness.ts'
import type { DiskFile } from '../../system/images.ts'
import { type Loose, type Prepared, prepare } from '../../system/launch.ts'
import { IDLE } from '../busybox.ts'
import { type Instead, withPlaces } from '../vmm/run.ts'
import type { Parts } from './parts.ts'
import type { Peer, Startable } from './peer.ts'
import { startVm, type Vm } from './vm.ts'

interface Wish {
  readonly machine: Machine
  readonly template: Template | null
  readonly bend?: (spec: Loose) => void
  readonly instead: Instead
  readonly network?: PodNetwork
}

/** The guest's end of test/bench/vmm/echo-tap.h. */
const NETWORK = networkOf({ addresses: ['10.99.0.2/24'], mac: '02:0a:63:00:00:02' })

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
  const prepared = ({ machine: on, template, bend, network }: Wish): Promise<Prepared> =>
    prepare(on, { args: IDLE, image: answering, template, ...(network && { network }) }, bend)
  const start = ({ machine: on, instead, network }: Wish, papers: Prepared): Promise<Vm> =>
    withPlaces(
      on,
      papers,
      (places) =>
        startVm(
          parts.runVmm,
          [on.artifacts.vmm, ...(network ? ['tap'] : [])],
          ['ignore', 'pipe', 'inherit', ...places],
        ),
      instead,
    )
  const launch = async (wish: Wish): Promise<Startable> => {
    const papers = await prepared(wish)
    return () => start(wish, papers)
  }
  const cold = (word: string, disk = answering): Wish => {
    const bend = withInit(disk, word)
    return { machine, template: null, bend, instead: { init: disk.path } }
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
    boot: () => launch(cold('act=reset')),
    bootIdle: () => launch(cold('act=idle')),
    measured: async () => {
      const words = 'checked=/dev/vda fill=/dev/vdc plain=/dev/vdc net= pipe= printk.devkmsg=on'
      const wish = { ...cold(words, parts.measuring), network: NETWORK }
      const papers = await prepared(wish)
      const vm = await start(wish, papers)
      await vm.ended
      return `${readFileSync(papers.logPath, 'latin1')} ${vm.why}`
    },
    answer: () => launch(answer),
    idle: () => launch(idle),
  }
}
