/** Everything that a pod's log has. */
import type { PodLogRecord } from '../../native/pod-log.ts'
import { followPodLog } from '../../native/pod-log-follow.ts'

export async function readLog(place: string): Promise<readonly PodLogRecord[]> {
  const never = new AbortController().signal
  const found: PodLogRecord[] = []
  const options = { since: 0, follow: false, ended: never, gone: never }
  for await (const one of followPodLog(place, options)) if (one.kind === 'record') found.push(one)
  return found
}
