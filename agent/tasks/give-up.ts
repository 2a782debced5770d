/**
 * The end of a launch that did not work: a refusal or a failure, on record, with nothing left behind.
 * Which of the two follows from the error: what the policy, the image or the quota says against it
 * is a refusal; everything else failed.
 */
import { SpawnError } from '../../native/spawn-client.ts'
import { SpecError } from '../../native/spec.ts'
import { Refusal } from '../../policy/index.ts'
import type { PodProblem } from '../../tenants/index.ts'
import { ApiError, type PublicError, publicError, STATUSES } from '../errors.ts'
import { ImageError } from '../images/index.ts'
import { spawnUnavailable } from './host.ts'
import type { LaunchCall, LaunchPorts, Progress } from './launch.ts'
import { afterFailure, type NextStartChange, PASSING } from './next-start.ts'
import { denied, imageFacts, refusalFacts, restarted, unresolvedImage } from './record-parts.ts'
import type { RefusedLaunch } from './refusals.ts'
import { isRefusedBySpawn } from './start.ts'
import { pathless } from './tenant-words.ts'

const MESSAGE_CHARACTERS_MAX = 1024

/** What spawn says when it has no room, rather than something against this launch. */
const full = new Set([
  'HOST_FULL',
  'HOST_RESOURCES',
  'SPAWN_BUSY',
  'WORKERS_BUSY',
  'PODS_NOT_FORGOTTEN',
])

/** Of a spawn that is away, is about to be, or has just been restarted. */
const away = new Set(['SPAWN_UNREACHABLE', 'SPAWN_GONE', 'SPAWN_STOPPING'])

/** What only spawn knows for certain, under the codes that a decision has for it. */
const REFUSALS = [
  'HOST_PATH_LEVEL',
  'HOST_PATH_MISSING',
  'HOST_PATH_UNKNOWN',
  'HOST_PATH_UNSAFE',
  'PORT_TAKEN',
  'VOLUME_IN_USE',
  'VOLUME_UNKNOWN',
  'VOLUME_VM_ONLY',
] as const
const isRefusalOfSpawn = (code: string): code is (typeof REFUSALS)[number] =>
  REFUSALS.some((one) => one === code)

const noContainers = (reason: string, spawn: string): Refusal =>
  new Refusal(
    'ISOLATION_UNAVAILABLE',
    `This host starts no containers now, and nothing else is started instead. ${reason}`,
    { spawn },
  )

function shownOf(error: unknown): PublicError {
  if (error instanceof SpawnError) return shownOfSpawn(error)
  if (!(error instanceof SpecError)) return publicError(error)
  return error.code === 'CONTAINER_UNAVAILABLE'
    ? noContainers(pathless(error.message), error.code)
    : new ApiError('BAD_REQUEST', error.message, {}, { cause: error })
}

function shownOfSpawn(error: SpawnError): PublicError {
  if (away.has(error.code)) return spawnUnavailable(error)
  if (full.has(error.code)) {
    const sentence = 'This host has no room for another pod now. Try again later.'
    return new ApiError('HOST_FULL', sentence, { spawn: error.code }, { cause: error })
  }
  if (error.code === 'CONTAINER_UNAVAILABLE' || error.code === 'STARTER_GONE') {
    return noContainers(pathless(error.message), error.code)
  }
  if (error.code === 'KVM_UNAVAILABLE') {
    const sentence = `This host has no usable KVM, and nothing weaker is started instead. ${pathless(error.message)}`
    return new Refusal('ISOLATION_UNAVAILABLE', sentence, { spawn: error.code })
  }
  if (isRefusalOfSpawn(error.code)) return new Refusal(error.code, pathless(error.message), {})
  const sentence = `The pod could not be started (${error.code}): ${error.message}`
  return new ApiError('LAUNCH_FAILED', sentence, { spawn: error.code }, { cause: error })
}

function refusedOf(
  ports: LaunchPorts,
  call: LaunchCall,
  { session, evidence, accepted }: Progress,
  shown: Refusal | ImageError,
): RefusedLaunch {
  const image =
    session === null ? unresolvedImage(call.image) : imageFacts(session.image, evidence, accepted)
  return {
    launchId: call.request.pod,
    tenant: call.scope.tenant,
    actor: call.actor,
    image,
    requested: call.request.isolation,
    policy: shown instanceof Refusal ? denied(shown, ports.policies) : null,
    refusal: refusalFacts(shown),
    restart: call.restart,
  }
}

/** The pod has run, so it has failed; and it ends, or is tried again later. */
async function refuseRestart(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  shown: Refusal | ImageError,
): Promise<void> {
  const { scope, request } = call
  const refused = refusedOf(ports, call, progress, shown)
  const next = await nextAfter(ports, call, shown)
  // What ends a pod has a record of its own; of what is tried again the count is enough.
  if (next.restart === undefined) await ports.refusals.recordAlone(refused)
  else await ports.refusals.record(refused)
  const problem = problemFor(progress, shown)
  await ports.tenants.movePod(scope, request.pod, 'failed', { problem, ...next })
}

/** What is kept of it, for `inspect` and `debug`. */
const problemFor = ({ stage }: Progress, shown: PublicError): PodProblem => ({
  code: shown.code,
  message: shown.message.slice(0, MESSAGE_CHARACTERS_MAX),
  stage,
  facts: shown instanceof ImageError ? {} : shown.facts,
})

/** Only a restart has a next start: the first one's caller was told, and may ask again. */
async function nextAfter(
  ports: LaunchPorts,
  { scope, request, restart }: LaunchCall,
  shown: PublicError,
): Promise<NextStartChange> {
  if (restart === null) return {}
  return afterFailure(await ports.tenants.getPod(scope, request.pod), shown, ports.now())
}

async function refuse(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  shown: Refusal | ImageError,
): Promise<void> {
  const { scope, request } = call
  const alone = await ports.refusals.record(refusedOf(ports, call, progress, shown))
  const problem = problemFor(progress, shown)
  await ports.tenants.movePod(scope, request.pod, 'refused', { problem })
  // Of a flood only the count is kept, here as in the log.
  if (alone) return
  await ports.tenants.releaseRequest(scope, request.pod)
  await ports.tenants.deletePod(scope, request.pod)
}

async function fail(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  shown: PublicError,
): Promise<void> {
  const { scope, request } = call
  const message = shown.message.slice(0, MESSAGE_CHARACTERS_MAX)
  await ports.watch.note({
    type: 'launch.failed',
    launch_id: request.pod,
    tenant: scope.tenant,
    intent_index: progress.intent?.index ?? null,
    stage: progress.stage,
    code: shown.code,
    message,
    ...restarted(call),
  })
  const problem = problemFor(progress, shown)
  const next = await nextAfter(ports, call, shown)
  await ports.tenants.movePod(scope, request.pod, 'failed', { problem, ...next })
  await ports.files.remove(request.pod)
}

/**
 * Whether the same request, sent again, should be tried anew rather than get this answer: what is
 * against it passes, and nothing of it runs.
 * What spawn did with a launch that it did not refuse is not known, so that answer is kept.
 */
export function isPassing(stage: Progress['stage'], error: unknown, shown: PublicError): boolean {
  return PASSING.has(STATUSES[shown.code]) && (stage !== 'start' || isRefusedBySpawn(error))
}

async function writeDown(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  { error, shown }: { readonly error: unknown; readonly shown: PublicError },
): Promise<void> {
  const { stage } = progress
  const early = stage !== 'intent' && stage !== 'start'
  const against = shown instanceof Refusal || shown instanceof ImageError
  const decided = stage !== 'resolve' && stage !== 'decide'
  // A refusal after the decision is folded, but launch.requested is on record by itself by then.
  if (decided || !against) ports.budgets.failed(call.scope.tenant)
  if (early && against) {
    await (call.restart === null ? refuse : refuseRestart)(ports, call, progress, shown)
  } else await fail(ports, call, progress, shown)
  // After the pod has ended in the store: a crash in between leaves an answer, not two pods.
  if (isPassing(stage, error, shown)) {
    await ports.tenants.releaseRequest(call.scope, call.request.pod)
  }
}

/** The store and the record have the paths of the host that spawn named; its caller does not get them. */
const forCaller = (shown: PublicError): PublicError =>
  shown instanceof ApiError && shown.code === 'LAUNCH_FAILED'
    ? new ApiError(shown.code, pathless(shown.message), shown.facts, { cause: shown.cause })
    : shown

/** Ends the pod in the store and on record. Returns what the caller is told. */
export async function giveUp(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  error: unknown,
): Promise<PublicError> {
  const shown = shownOf(error)
  if (shown.code === 'INTERNAL' || shown.code === 'LAUNCH_FAILED') {
    ports.log.error({ err: error, pod: call.request.pod, stage: progress.stage }, 'launch failed')
  }
  try {
    await writeDown(ports, call, progress, { error, shown })
  } catch (cause) {
    // The store does not answer either; reconcile finds the pod at the next start.
    ports.log.error({ err: cause, pod: call.request.pod }, 'a failed launch was not written down')
  }
  return forCaller(shown)
}
