/** Casemate's containers, from the spec on: record, receipt, spawn, monitor, runc, and the log read as a follower does. */
import path from 'node:path'
import { executions } from '../../system/executions.ts'
import type { Machine } from '../../system/harness.ts'
import { buildDisk } from '../../system/images.ts'
import { type Running, start } from '../../system/launch.ts'
import { imageTar, type Peer } from './peer.ts'

const STOP_MS = 10_000

export async function openOurs(machine: Machine, folder: string): Promise<Peer> {
  const image = await buildDisk(path.join(folder, 'image'), imageTar())
  const beside = executions(machine)
  const launch = (args: readonly string[]): Promise<Running> => start(machine, { args, image })
  return {
    name: 'casemate',
    start: async (args) => {
      const running = await launch(args)
      await running.says(/hello/u)
      return {
        exec: async (what) => {
          const { end } = await beside.run(running, what)
          if (end.kind !== 'exit' || end.value !== 0)
            throw new Error(`exec: ${JSON.stringify(end)}`)
        },
        stop: async () => {
          await machine.spawn.stop(running.pod, STOP_MS)
          await running.exit()
        },
      }
    },
    run: async (args) => {
      await (await launch(args)).exit()
    },
  }
}
