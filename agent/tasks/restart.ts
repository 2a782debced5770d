/**
 * Starts a pod again that is due by its rule: a launch like any other, of the digest that its first
 * start resolved, with everything decided anew (docs/decisions/0027-a-restart-is-a-launch.md).
 */
import { canonicalJson } from '../../policy/canonical.ts'
import {
  defaultHostname,
  HOST_NETWORK,
  type Hostname,
  type LaunchRequest,
  type PodId,
  type Principal,
  parsePodId,
} from '../../policy/index.ts'
import type { BegunRestart, Pod, TenantScope } from '../../tenants/index.ts'
import { publicError } from '../errors.ts'
import { formatReference, parseReference } from '../images/index.ts'
import { parseKeptLaunch, parseLaunch } from '../routes/launch-body.ts'
import { type LaunchCall, type LaunchPorts, launch } from './launch.ts'
import { stopMsOf } from './launch-facts.ts'
import { AGENT, textDigest } from './record-parts.ts'
import { removeStart } from './remove.ts'

/** Ended starts of one pod that are kept beside the newest one, with their logs. */
export const STARTS_KEPT = 5

/** In whose name the pod was asked for: an operator, or an identity of its tenant. */
function principalOf({ identity, tenant }: Pod): Principal {
  const uid = /^uid:(\d+)$/u.exec(identity)?.[1]
  return uid === undefined
    ? { kind: 'tenant', tenant, subject: identity }
    : { kind: 'operator', uid: Number(uid) }
}

/** The image by digest: a tag may lead elsewhere by now. */
function pinned({ imageReference, imageDigest }: Pod): string {
  if (imageDigest === null) throw new Error('a pod that ran has no image digest')
  return formatReference({ ...parseReference(imageReference), tag: null, digest: imageDigest })
}

/** The pod keeps the name that it had; with the host's network it has the host's. */
const hostnameOf = ({ hostname, network }: LaunchRequest, origin: PodId): Hostname | null =>
  network === HOST_NETWORK ? hostname : (hostname ?? defaultHostname(origin))

/** @throws BadNoun when what was asked for is no request of this version */
function callOf(scope: TenantScope, { pod, request }: BegunRestart, after: PodId): LaunchCall {
  if (pod.restart === null) throw new Error('a pod without a rule is not started again')
  const { origin, attempt } = pod
  const asked = parseLaunch(parseKeptLaunch(request), pod.id, principalOf(pod))
  return {
    scope,
    actor: AGENT,
    image: pinned(pod),
    request: { ...asked, hostname: hostnameOf(asked, origin) },
    credentials: null,
    requestDigest: textDigest(canonicalJson(request)),
    keyDigest: null,
    restart: { pod: origin, attempt, rule: pod.restart.rule, after },
  }
}

/** The store has it, the log has it, and then it is over: nobody waits for the answer. */
async function endUnreadable(ports: LaunchPorts, scope: TenantScope, pod: Pod, cause: unknown) {
  const { code, message } = publicError(cause)
  ports.log.error({ err: cause, pod: pod.id }, 'a pod cannot be started again')
  await ports.watch.note({
    type: 'launch.failed',
    launch_id: pod.id,
    tenant: scope.tenant,
    intent_index: null,
    stage: 'resolve',
    code,
    message,
  })
  await ports.tenants.movePod(scope, pod.id, 'failed', { problem: { code, message } })
}

/** Starts that are too many, with their logs; their records stay. */
async function forgetOldest(ports: LaunchPorts, scope: TenantScope, pod: PodId): Promise<void> {
  const starts = await ports.tenants.listStarts(scope, pod)
  for (const { id } of starts.slice(0, -(STARTS_KEPT + 1))) {
    // oxlint-disable-next-line no-await-in-loop -- one or none, nearly always
    await removeStart(ports, scope, id)
  }
}

/** Told to stop while it was being launched: then there was nothing that could be stopped. */
async function stopIfTold(ports: LaunchPorts, scope: TenantScope, pod: PodId): Promise<void> {
  const found = await ports.tenants.getPod(scope, pod)
  if (found.stopAsked && found.state === 'running') await ports.spawn.stop(pod, stopMsOf(found))
}

/** @param before the start that is due to be followed */
export async function restart(
  ports: LaunchPorts,
  { scope, pod: before }: { readonly scope: TenantScope; readonly pod: Pod },
): Promise<void> {
  const id = parsePodId(ports.clock.uuid())
  const begun = await ports.tenants.beginRestart(scope, before.id, id)
  if (begun === null) return
  let call: LaunchCall
  try {
    call = callOf(scope, begun, before.id)
  } catch (error) {
    await endUnreadable(ports, scope, begun.pod, error)
    return
  }
  // How it failed is on record and in the store, and so is what comes of it.
  const started = await launch(ports, call).catch(() => null)
  if (started !== null) await stopIfTold(ports, scope, id)
  // Last: the start that was begun is settled by now. Somebody else may be removing the same.
  await forgetOldest(ports, scope, id).catch((error: unknown) => {
    ports.log.warn({ err: error, pod: id }, 'old starts of a pod are left for another time')
  })
}
