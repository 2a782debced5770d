/**
 * One interface to start a pod at any isolation level, and one contract that all levels keep
 * (test/native/launcher.contract.ts). A launcher decides nothing: the ticket says what runs, and
 * spawn checks it again.
 */
import type { IsolationLevel } from '../policy/nouns/isolation.ts'
import { Refusal } from '../policy/refusal.ts'
import { PodStream } from './pod-stream.ts'
import type { LaunchCall, SpawnClient } from './spawn-client.ts'

export interface StartedPod {
  readonly pid: number
  readonly stream: PodStream
}

export interface Launcher {
  /** Starts the pod of a ticket. @throws SpawnError, Refusal ISOLATION_NOT_AVAILABLE */
  launch(call: LaunchCall): Promise<StartedPod>
}

const vm = (spawn: SpawnClient): Launcher => ({
  launch: async (call) => {
    const { pid, stream } = await spawn.launch(call)
    return { pid, stream: new PodStream(stream) }
  },
})

const notYet = (level: IsolationLevel): Launcher => ({
  launch: () => {
    const sentence = `This version of Casemate starts no pods at level ${level}; ask for level vm`
    return Promise.reject(new Refusal('ISOLATION_NOT_AVAILABLE', sentence, { level }))
  },
})

/** The launcher of each level. */
export function launchers(spawn: SpawnClient): Readonly<Record<IsolationLevel, Launcher>> {
  return { vm: vm(spawn), container: notYet('container'), host: notYet('host') }
}
