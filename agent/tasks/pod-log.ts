/**
 * A pod's log: those of its starts that are kept, one after the other. Each is a ring of its own, so an
 * offset goes with the number of the start. What is followed ends when no start is left to come.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodLogGap, PodLogRecord } from '../../native/pod-log.ts'
import { followPodLog } from '../../native/pod-log-follow.ts'
import type { PodId } from '../../policy/index.ts'
import { isFinal, isOver, type Pod, type TenantScope } from '../../tenants/index.ts'
import type { Ports } from './ports.ts'
import type { Watch } from './watch.ts'

/** How often it is looked whether the next start has a log, or an agent that has just begun follows the pod. */
const LOOK_MS = 200

export type PodLogEntry = (PodLogRecord | PodLogGap) & {
  /** Number of the start that wrote it. */
  readonly attempt: number
}

export interface PodLogCall {
  readonly scope: TenantScope
  readonly pod: PodId
  /** null: from the oldest that is kept. */
  readonly from: { readonly attempt: number | null; readonly offset: number }
  readonly follow: boolean
  /** The reader has gone. */
  readonly gone: AbortSignal
}

type LogPorts = Pick<Ports, 'tenants' | 'files'> & { readonly watch: Watch }

const ENDED = AbortSignal.abort()

/** What a start has written since `offset`. Ends with the start, or when it is not followed any more. */
async function* readOnce(
  ports: LogPorts,
  { gone, follow }: PodLogCall,
  start: Pod,
  offset: number,
): AsyncGenerator<PodLogEntry> {
  // A launch that was refused never had a log; that is an empty one.
  if (!(await ports.files.hasLog(start.id))) return
  const ended = isFinal(start.state) ? ENDED : ports.watch.ended(start.id)
  const options = { since: offset, follow, ended, gone }
  for await (const found of followPodLog(ports.files.logPath(start.id), options)) {
    yield { ...found, attempt: start.attempt }
  }
}

const nextOf = (entry: PodLogEntry): number => (entry.kind === 'gap' ? entry.to : entry.next)

/** A place in the log: where a record of that start ends and the next one begins. */
export interface Place {
  readonly attempt: number
  readonly offset: number
}

/** Yields what there is of one start, and returns where to go on: there again, or with the next start. */
async function* readStart(
  ports: LogPorts,
  call: PodLogCall,
  start: Pod,
  at: Place,
): AsyncGenerator<PodLogEntry, Place> {
  const { attempt } = start
  let offset = attempt === at.attempt ? at.offset : 0
  for await (const entry of readOnce(ports, call, start, offset)) {
    offset = nextOf(entry)
    yield entry
  }
  // The state is from before the reading: what was final then has written all that it ever will.
  const isRead = !call.follow || isFinal(start.state)
  return isRead ? { attempt: attempt + 1, offset: 0 } : { attempt, offset }
}

/** @throws PodLogError */
export async function* podLog(ports: LogPorts, call: PodLogCall): AsyncGenerator<PodLogEntry> {
  const { scope, pod, from, follow, gone } = call
  let at: Place = { attempt: from.attempt ?? 0, offset: from.offset }
  while (!gone.aborted) {
    // oxlint-disable-next-line no-await-in-loop -- one start after the other
    const starts = await ports.tenants.listStarts(scope, pod)
    for (const start of starts) {
      if (start.attempt >= at.attempt) at = yield* readStart(ports, call, start, at)
    }
    if (!follow || isOver(starts.at(-1) ?? starts[0])) return
    // oxlint-disable-next-line no-await-in-loop -- waiting is the point
    await sleep(LOOK_MS, undefined, { signal: gone }).catch(() => undefined)
  }
}
