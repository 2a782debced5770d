/**
 * One interface to start a pod at any isolation level, and one contract that all levels keep
 * (test/native/launcher.contract.ts). A launcher decides nothing: the ticket says what runs, and
 * spawn checks it again.
 */
import { closeSync } from 'node:fs'
import type { IsolationLevel } from '../policy/nouns/isolation.ts'
import { PodStream } from './pod-stream.ts'
import { type LaunchCall, type SpawnClient, SpawnError } from './spawn-client.ts'

export interface StartedPod {
  readonly pid: number
  readonly stream: PodStream
}

export interface Launcher {
  /** Starts the pod of a ticket. @throws SpawnError */
  launch(call: LaunchCall): Promise<StartedPod>
}

/** @throws SpawnError SPAWN_PROTOCOL when the descriptor is no socket; it is closed then */
function podStream(fd: number): PodStream {
  try {
    return new PodStream(fd)
  } catch (cause) {
    closeSync(fd)
    throw new SpawnError('SPAWN_PROTOCOL', 'casemate-spawn sent no pod stream', { cause })
  }
}

/** Spawn starts what the spec's level says. */
const bySpawn = (spawn: SpawnClient): Launcher => ({
  launch: async (call) => {
    const { pid, stream } = await spawn.launch(call)
    return { pid, stream: podStream(stream) }
  },
})

/** The launcher of each level. */
export function launchers(spawn: SpawnClient): Readonly<Record<IsolationLevel, Launcher>> {
  const launcher = bySpawn(spawn)
  return { vm: launcher, container: launcher, host: launcher }
}
