/**
 * Launches one pod. The whole story is in this file; everything is called from here and returns.
 *
 *   admit     not more often than the tenant's budgets allow
 *   resolve   reference -> digest, once; signatures -> evidence. No byte of a layer is read yet
 *   decide    facts, request, evidence, host -> Plan | Refusal
 *   build     launch.requested on record, then layers -> EROFS + Merkle root
 *   reserve   quota, one transaction
 *   intent    spec; launch.intent on record, durable and signed -> ticket
 *   start     spawn checks the ticket, spends it and starts
 *
 * A crash after any line leaves a state that reconcile.ts adopts or undoes. Nothing can be started
 * here without a receipt: what starts processes asks for it.
 */
import { closeSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { type Actor, type Appended, deadlineIn, type RestartFacts } from '../../audit/index.ts'
import { defaultSeccompProfile } from '../../native/seccomp/default-profile.ts'
import type { HostDescription } from '../../native/spawn-answers.ts'
import { buildSpec, type Spec } from '../../native/spec.ts'
import {
  decide,
  keysToTry,
  type LaunchRequest,
  NETWORK_RATES,
  type Plan,
  Refusal,
} from '../../policy/index.ts'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import type { CheckedSignature, Credentials, ImageSession } from '../images/index.ts'
import type { LiveTokens } from '../live-tokens.ts'
import type { ChangeBudget } from './changes.ts'
import type { Drain } from './drain.ts'
import type { EventIndex } from './event-index.ts'
import type { ExecCounts } from './exec.ts'
import { giveUp } from './give-up.ts'
import { describeHost, type FoundHost, hostFacts } from './host.ts'
import type { LaunchBudgets } from './launch-budgets.ts'
import { type LaunchParts, launchFacts } from './launch-facts.ts'
import { type FoundFile, findFiles, type SealedFiles, sealFiles } from './launch-files.ts'
import type { Launching } from './launching.ts'
import type { Pauses } from './pauses.ts'
import type { Ports } from './ports.ts'
import {
  allowed,
  foundFacts,
  hostPathFacts,
  imageFacts,
  isolationFacts,
  resourceFacts,
  restarted,
  storedFiles,
  volumeFacts,
} from './record-parts.ts'
import type { Refusals } from './refusals.ts'
import { start } from './start.ts'
import type { Templates } from './templates.ts'
import { findVolumes, type PlannedVolume } from './volume-mounts.ts'
import type { Watch } from './watch.ts'

/** Spawn takes a ticket for at most 30 s; the rest is for a clock read in steps and a slow disk. */
const TICKET_MS = 25_000

export interface LaunchPorts extends Ports {
  readonly watch: Watch
  readonly refusals: Refusals
  readonly templates: Templates
  readonly budgets: LaunchBudgets
  readonly launching: Launching
  readonly changes: ChangeBudget
  readonly pauses: Pauses
  readonly execs: ExecCounts
  readonly events: EventIndex
  readonly live: LiveTokens
  readonly drain: Drain
}

export interface LaunchCall {
  readonly scope: TenantScope
  readonly actor: Actor
  readonly image: string
  readonly request: LaunchRequest
  /** For the image's registry; null: none. For nothing else, and written down nowhere. */
  readonly credentials: Credentials | null
  /** SHA-256 of the request's canonical bytes, without the credentials. */
  readonly requestDigest: string
  /** SHA-256 of its idempotency key; null: it has none. */
  readonly keyDigest: string | null
  /** null: somebody asked for it. */
  readonly restart: RestartFacts | null
}

/** How far a launch has come: what giving up has to undo, and what it can tell the record. */
export interface Progress {
  stage: 'resolve' | 'decide' | 'build' | 'reserve' | 'intent' | 'start'
  session: ImageSession | null
  evidence: readonly CheckedSignature[]
  /** Whether the signatures were accepted, as far as is known. */
  accepted: boolean
  intent: Appended | null
  podLog: FileHandle | null
  /** Content of the app's files; null: none, or not yet. */
  files: SealedFiles | null
}

type Parts = LaunchParts & { readonly volumes: readonly PlannedVolume[] }

/**
 * Launches the pod of `call.request`, which is in the store in state `requested`.
 * @throws what may be shown to the caller; the pod is then in a final state, and on record
 */
export async function launch(ports: LaunchPorts, call: LaunchCall): Promise<Pod> {
  const progress: Progress = {
    stage: 'resolve',
    session: null,
    evidence: [],
    accepted: false,
    intent: null,
    podLog: null,
    files: null,
  }
  try {
    return await proceed(ports, call, progress)
  } catch (error) {
    throw await giveUp(ports, call, progress, error)
  } finally {
    await progress.podLog?.close()
    if (progress.files !== null) closeSync(progress.files.fd)
    await progress.session?.close()
  }
}

async function proceed(ports: LaunchPorts, call: LaunchCall, progress: Progress): Promise<Pod> {
  const { scope, request } = call
  const { launchesPerMinute } = await ports.tenants.getTenant(scope)
  ports.budgets.admit(scope.tenant, launchesPerMinute)
  const session = await resolve(ports, call, progress)

  progress.stage = 'decide'
  const host = await describeHost(ports.spawn)
  const found = await lookAt(ports, host)
  const files = await findFiles(ports, scope, request)
  const plan = await decideOn(ports, call, progress, { session, found, files })

  const volumes = await findVolumes(ports, scope, plan)

  progress.stage = 'build'
  await ports.safety.note(found.report)
  await ports.audit.append(requested(call))
  await ports.tenants.notePod(scope, request.pod, {
    imageDigest: plan.image.digest,
    level: plan.level,
  })
  await pull(ports, call, session)
  const rootfs = await session.buildRootfs(plan.level === 'vm')

  progress.stage = 'reserve'
  const place = await ports.tenants.reserve(scope, request.pod, plan)
  const { egress, names, ports: published } = plan
  const network = place && { ...place, egress, names, ports: published, rates: NETWORK_RATES }
  await ports.tenants.movePod(scope, request.pod, 'launching')

  progress.stage = 'intent'
  ports.launching.goOn()
  const podLog = await ports.files.createLog(request.pod, plan.logBytes)
  progress.podLog = podLog
  const template = plan.level === 'vm' ? await ports.templates.get(plan) : null
  progress.files = await sealFiles(plan, files)
  const parts = { plan, host, rootfs, template, network, volumes }
  const spec = await specOf(ports, parts, progress.files)
  const body = intentOf(ports, call, progress, { ...parts, spec, session })
  const intent = await ports.audit.append(body)
  progress.intent = intent
  const ticket = await ports.audit.receipt(intent.index)
  await ports.tenants.notePod(scope, request.pod, {
    recordIndex: intent.index,
    specDigest: spec.digest,
    facts: launchFacts(parts),
  })

  progress.stage = 'start'
  const sealed = progress.files
  return await start(ports, { scope, plan, spec, intent, ticket, rootfs, log: podLog, sealed })
}

async function resolve(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
): Promise<ImageSession> {
  const { tenant } = call.scope
  const session = await ports.images.resolve(call.image, {
    tenant,
    credentials: call.credentials,
    access: 'pull',
  })
  progress.session = session
  return session
}

/** What was fetched is on record, and its tenant can see it. */
async function pull(ports: LaunchPorts, call: LaunchCall, session: ImageSession): Promise<void> {
  const { bytes, files: layers } = await session.pullLayers()
  if (layers === 0) return
  await ports.watch.note({
    type: 'image.pulled',
    launch_id: call.request.pod,
    tenant: call.scope.tenant,
    manifest: session.image.manifest.digest,
    layers,
    bytes,
  })
}

/** The host at this moment: what is wrong with it, and what of that its operators set aside. */
async function lookAt(ports: LaunchPorts, host: HostDescription): Promise<FoundHost> {
  const report = await ports.safety.examine(host)
  return { host, report, exceptions: await ports.tenants.activeHostExceptions() }
}

/** What was found before a decision. */
interface DecidedOn {
  readonly session: ImageSession
  readonly found: FoundHost
  readonly files: readonly FoundFile[]
}

/** @throws Refusal */
async function decideOn(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  { session, found, files }: DecidedOn,
): Promise<Plan> {
  const tenant = await ports.tenants.facts(call.scope)
  const { resolved, process } = session.image
  const rules = { floor: ports.imageFloor, tenant: tenant.imageRule }
  const evidence = await session.collectEvidence(keysToTry(rules, resolved))
  progress.evidence = evidence
  const image = { reference: call.image, resolved, config: process, evidence }
  const { request } = call
  const question = { tenant, request, image, files, host: hostFacts(found, ports) }
  const outcome = decide(question, ports.policies)
  if (outcome instanceof Refusal) throw outcome
  progress.accepted = true
  return outcome
}

const requested = (call: LaunchCall) =>
  ({
    type: 'launch.requested',
    launch_id: call.request.pod,
    tenant: call.scope.tenant,
    actor: call.actor,
    image_ref: call.image,
    level_requested: call.request.isolation,
    request: call.requestDigest,
    idempotency_key: call.keyDigest,
    ...restarted(call),
  }) as const

async function specOf(ports: LaunchPorts, parts: Parts, sealed: SealedFiles | null): Promise<Spec> {
  const { plan, rootfs } = parts
  const profile = defaultSeccompProfile(plan.process.capabilities.bounding)
  const seccomp = await ports.seccomp(profile)
  const image = { size: rootfs.size, verity: rootfs.verity }
  const volumeSizes = parts.volumes.map(({ sizeBytes }) => sizeBytes)
  const files = sealed && { size: sealed.size, digest: sealed.digest }
  return buildSpec({ ...parts, image, seccomp, files, volumeSizes })
}

function intentOf(
  ports: LaunchPorts,
  call: LaunchCall,
  progress: Progress,
  parts: Parts & { readonly spec: Spec; readonly session: ImageSession },
) {
  const { plan, host, rootfs, template, network, volumes, spec, session } = parts
  const { image } = session
  return {
    type: 'launch.intent',
    launch_id: plan.pod,
    tenant: plan.tenant,
    trust: plan.trust,
    actor: call.actor,
    image: {
      ...imageFacts(image, progress.evidence, true),
      config: image.configDigest,
      layers: image.layers.map((layer) => layer.digest),
      root: rootfs.verity.root,
    },
    policy: allowed(plan),
    isolation: isolationFacts(plan, host, template),
    host: foundFacts(plan),
    spec: { digest: spec.digest, size: spec.bytes.length },
    resources: resourceFacts(plan, host.scratch.size),
    ...(network === null ? {} : { network: { ...network } }),
    ...storedFiles(plan),
    ...volumeFacts(volumes),
    ...hostPathFacts(plan),
    ...restarted(call),
    deadline: deadlineIn(ports.clock, TICKET_MS),
  } as const
}
