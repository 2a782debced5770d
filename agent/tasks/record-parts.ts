/** Parts of records, from what the launch knows. Values of the environment never go in: only names. */
import { createHash } from 'node:crypto'
import type {
  Actor,
  ContainerFacts,
  HostFacts,
  ImageFacts,
  IsolationFacts,
  PolicyFacts,
  RecordBodies,
  RestartFacts,
  StoredFileFacts,
} from '../../audit/index.ts'
import type { HostDescription, Template } from '../../native/spawn-answers.ts'
import type { ActivePolicies, Plan, Refusal } from '../../policy/index.ts'
import { environmentKey } from '../../policy/nouns/process.ts'
import type { Caller } from '../../tenants/index.ts'
import type { CheckedSignature, Image } from '../images/index.ts'
import { formatReference } from '../images/index.ts'
import type { PlannedVolume } from './volume-mounts.ts'

const SIGNERS_MAX = 32
const TEXT_CHARACTERS_MAX = 1024

/** SHA-256 of a text's UTF-8 bytes. */
export const textDigest = (text: string): string =>
  `sha256:${createHash('sha256').update(text).digest('hex')}`

/** Where a request came from, beside who sent it. */
export interface Origin {
  /** null for the unix socket. */
  readonly address: string | null
}

export function actorOf(caller: Caller, origin: Origin): Actor {
  if (caller.kind === 'operator') {
    const auth = {
      method: 'unix-peer',
      iss: null,
      jti: null,
      uid: caller.uid,
      src_ip: null,
    } as const
    return { sub: `uid:${caller.uid}`, kind: 'operator', auth }
  }
  const auth = {
    method: 'jwt',
    iss: null,
    jti: caller.jti,
    uid: null,
    src_ip: origin.address,
  } as const
  return { sub: caller.subject, kind: 'tenant', auth }
}

/** What the agent does of itself. */
export const AGENT: Actor = {
  sub: 'agent',
  kind: 'agent',
  auth: { method: 'internal', iss: null, jti: null, uid: null, src_ip: null },
}

/** Only what a rule started again has the member. */
export const restarted = ({
  restart,
}: {
  readonly restart: RestartFacts | null
}): { readonly restart?: RestartFacts } => (restart === null ? {} : { restart })

/** An image of which nothing is known but the words of the request. */
export const unresolvedImage = (reference: string): ImageFacts => ({
  ref: reference,
  index: null,
  manifest: null,
  platform: null,
  verify: { result: 'not-reached', signers: [] },
})

function verdictOf(evidence: readonly CheckedSignature[], accepted: boolean): ImageFacts['verify'] {
  const result = accepted ? 'verified' : evidence.length === 0 ? 'unsigned' : 'failed'
  return {
    result,
    signers: evidence.slice(0, SIGNERS_MAX).map((one) => ({
      key: one.keyId,
      kind: one.kind,
      form: one.form,
      artifact: one.artifact,
      verified: one.verified,
      reason: one.reason,
    })),
  }
}

export function imageFacts(
  image: Image,
  evidence: readonly CheckedSignature[],
  accepted: boolean,
): ImageFacts {
  const manifest = image.manifest.digest
  return {
    ref: formatReference(image.reference),
    index: image.resolved.digest === manifest ? null : image.resolved.digest,
    manifest,
    platform: 'linux/amd64',
    verify: verdictOf(evidence, accepted),
  }
}

export const allowed = (plan: Plan): PolicyFacts => ({
  bundle: plan.decision.policySetDigest,
  decision: 'allow',
  determining: plan.decision.policyIds,
  reasons: plan.decision.reasons,
})

export const denied = (refusal: Refusal, policies: ActivePolicies): PolicyFacts => ({
  bundle: policies.digest,
  decision: 'deny',
  determining: refusal.policyIds,
  reasons: [],
})

export const refusalFacts = (refusal: {
  readonly code: string
  readonly message: string
  readonly policyIds?: readonly string[]
}): RecordBodies['launch.refused']['refusal'] => ({
  code: refusal.code,
  message: refusal.message.slice(0, TEXT_CHARACTERS_MAX),
  policies: refusal.policyIds ?? [],
})

function containerFacts(plan: Plan, host: HostDescription): ContainerFacts {
  if (plan.level === 'vm' || host.container === null) throw new Error('no container')
  const { bundle, digest, runtime } = host.container
  return {
    level: plan.level,
    kvm: null,
    requested: plan.decision.requested,
    image_hashed: 'when attached',
    monitor: digest,
    bundle,
    runtime,
  }
}

export function isolationFacts(
  plan: Plan,
  host: HostDescription,
  template: Template | null,
): IsolationFacts {
  if (plan.level !== 'vm') return containerFacts(plan, host)
  if (plan.kvm === null) throw new Error('a virtual machine without KVM')
  return {
    level: plan.level,
    kvm: plan.kvm,
    requested: plan.decision.requested,
    vmm: host.vmm.digest,
    filters: { ...host.vmm.filters },
    kernel: host.kernel.digest,
    cmdline: textDigest(host.cmdline),
    init_root: host.init.verity.root,
    template: template === null ? null : { memory: template.memory, state: template.state },
  }
}

/** What was found wrong with the host, and the exceptions it is launched by. */
export const foundFacts = ({ decision }: Plan): HostFacts => ({
  findings: decision.hostFindingsDigest,
  exceptions: decision.hostExceptions.map(({ finding, record }) => ({ finding, record })),
})

/** Configs and secrets that a pod gets, by version: from no digest of a secret could it be guessed. */
export const storedFiles = ({
  storedFiles: files,
}: Plan): { readonly files?: readonly StoredFileFacts[] } =>
  files.length === 0 ? {} : { files: files.map((file) => ({ ...file })) }

export const resourceFacts = (
  plan: Plan,
  scratchBytes: number,
): RecordBodies['launch.intent']['resources'] => ({
  vcpus: plan.vcpus,
  memory_mib: plan.memoryMib,
  cpu_quota_percent: plan.limits.cpuQuotaPercent,
  scratch_bytes: scratchBytes,
  capabilities: plan.process.capabilities.bounding,
  env_names: plan.process.env.map(environmentKey),
})

/** Only a launch with volumes has the member. */
export const volumeFacts = (
  volumes: readonly PlannedVolume[],
): Pick<RecordBodies['launch.intent'], 'volumes'> =>
  volumes.length === 0
    ? {}
    : { volumes: volumes.map(({ name, readOnly }) => ({ volume: name, read_only: readOnly })) }

/** Only a launch with paths of the host has the member. */
export function hostPathFacts({ mounts }: Plan): Pick<RecordBodies['launch.intent'], 'host_paths'> {
  const found = mounts.flatMap((mount) => (mount.kind === 'host' ? [mount] : []))
  if (found.length === 0) return {}
  return {
    host_paths: found.map(({ name, subPath, readOnly }) => ({
      host_path: name,
      sub_path: subPath,
      read_only: readOnly,
    })),
  }
}

/** A key may be a secret of the caller's; its digest still tells two requests apart. */
export const keyDigest = (key: string): string => textDigest(key)
