/**
 * The standard input of a pod's app: open from its start until the input of somebody who is attached ends. One caller at
 * a time has it. What is typed can be as much as executing, so policy decides it as that, and it is on record before the
 * first byte.
 */
import type { PodStream } from '../../native/pod-stream.ts'
import { isCanonicalObject } from '../../policy/canonical.ts'
import type { Pod } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import { type ChangeCall, change, conflict, runningPod } from './changes.ts'
import { decide, type ExecPorts } from './exec.ts'
import { actorOf } from './record-parts.ts'

/** The fact of a start whose input has ended. */
const ENDED = 'input_ended'

const factsOf = ({ facts }: Pod): Readonly<Record<string, unknown>> =>
  isCanonicalObject(facts) ? facts : {}

/** Who has the input of which pod. */
export class InputHolders {
  readonly #held = new Set<Pod['id']>()

  /**
   * Until the function that it gives is called.
   * @throws ApiError INPUT_TAKEN
   */
  take(pod: Pod['id']): () => void {
    if (this.#held.has(pod)) {
      const sentence = `Somebody else is attached to the standard input of pod ${pod}. End that first.`
      throw new ApiError('INPUT_TAKEN', sentence, { pod })
    }
    this.#held.add(pod)
    return () => this.#held.delete(pod)
  }
}

/**
 * Everything that can be refused before anything is promised; what it decides is on record when it resolves.
 * @throws ApiError POD_STATE_CONFLICT, INPUT_ENDED, TOO_MANY_REQUESTS; Refusal; AuditUnavailable
 */
export async function openInput(ports: ExecPorts, call: ChangeCall): Promise<PodStream> {
  const { scope, pod: id } = call
  const pod = await runningPod(ports, call)
  if (ports.pauses.has(id)) throw conflict(id, 'paused')
  const stream = ports.watch.stream(id)
  if (stream === null || stream.closed) throw conflict(id, 'ending')
  if (factsOf(pod)[ENDED] === true || stream.hasInputEnded) {
    const sentence = `The standard input of pod ${id} has ended, and there is no other. Run a new one.`
    throw new ApiError('INPUT_ENDED', sentence, { pod: id })
  }
  // Refusals are on record too.
  ports.execs.spend(scope.tenant)
  await decide(ports, call, { program: '', errand: 'input', user: '', terminal: false })
  const record = {
    type: 'launch.input_opened',
    launch_id: id,
    tenant: scope.tenant,
    actor: actorOf(call.caller, call.origin),
  } as const
  await change(ports, call, record, async () => {})
  if (stream.closed) throw conflict(id, 'ending')
  return stream
}

/** The end is on its way: also the agent after this one knows that no more can come. */
export async function noteInputEnd(
  ports: Pick<ExecPorts, 'tenants'>,
  { scope, pod: id }: ChangeCall,
): Promise<void> {
  const pod = await ports.tenants.getPod(scope, id)
  const { facts } = pod
  const noted = { ...(isCanonicalObject(facts) ? facts : {}), [ENDED]: true }
  await ports.tenants.notePod(scope, id, { facts: noted })
}
