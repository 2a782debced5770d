/**
 * The decision about one launch: facts in, Plan or Refusal out. No I/O, no clock, no state.
 *
 * The order is from what is cheapest to say to what needs everything: the tenant, the image's
 * signatures, the process, the level, the host, the quota. A caller sees the first that fails.
 */
import type { ActivePolicies } from './cedar/policies.ts'
import type { LaunchQuery } from './cedar/query.ts'
import type { Charge, HostFacts, LaunchQuestion, Quotas, TenantFacts } from './facts.ts'
import { planHealth } from './health-plan.ts'
import { processAtLevel, refuseAtLevel } from './host-level.ts'
import { refuseHostPaths } from './host-paths.ts'
import { neededExceptions } from './host-verdict.ts'
import { type AcceptedSigner, judgeImage } from './image-verdict.ts'
import { chooseLevel, type LevelChoice } from './level-choice.ts'
import { planMounts } from './mounts.ts'
import type { HostException } from './nouns/host-finding.ts'
import type { IsolationLevel, KvmClass } from './nouns/isolation.ts'
import { DEFAULT_MEMORY_MIB, DEFAULT_VCPUS, type MemoryMib, type Vcpus } from './nouns/machine.ts'
import { defaultHostname } from './nouns/pod.ts'
import { DEFAULT_STOP_MS } from './nouns/signal.ts'
import type { Decision, Plan, PlannedLimits } from './plan.ts'
import { planProcess, refuseHostLimits, wantedCapabilities } from './process-plan.ts'
import { DEVICE_RATES } from './rates.ts'
import { Refusal } from './refusal.ts'
import { planWays } from './ways.ts'

/** What a pod's scratch disk may grow to by resizing; it begins as small as the host's empty one. */
const SCRATCH_BYTES_MAX = 8 * 2 ** 30
/** 4 MiB: the log descriptor's whole size, header included. */
const LOG_BYTES = 4_194_304

/** Never throws for what a caller, an image or a policy did; those are refusals. */
export function decide(question: LaunchQuestion, policies: ActivePolicies): Plan | Refusal {
  try {
    return planOf(question, policies)
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
}

function planOf(question: LaunchQuestion, policies: ActivePolicies): Plan {
  const { tenant, request, image, host } = question
  refuseSuspended(tenant)
  const signers = judgeImage(
    { floor: host.imageFloor, tenant: tenant.imageRule },
    image.resolved,
    image.evidence,
  )
  if (signers instanceof Refusal) throw signers
  const capabilities = wantedCapabilities(tenant.trust, request)
  const process = planProcess(image.config, request, capabilities)
  const health = planHealth(image.config, request.health)
  const vcpus = request.vcpus ?? DEFAULT_VCPUS
  const memoryMib = request.memoryMib ?? DEFAULT_MEMORY_MIB
  const storage = planMounts(question, memoryMib)
  const { storedFiles } = storage
  const query = queryOf(question, { signers, capabilities, vcpus, memoryMib, storedFiles })
  const choice = chooseLevel(policies, query, request.isolation)
  refuseHostLimits(process.rlimits, choice.level)
  refuseHostPaths(storage.mounts, choice.level)
  refuseAtLevel(request, choice.level)
  const kvm = kvmFor(choice.level, host)
  const exceptions = neededExceptions(tenant, host)
  const charge: Charge = { vcpus, memoryMib, pods: 1 }
  refuseOverQuota(tenant.quotas, charge)
  return {
    pod: request.pod,
    tenant: tenant.id,
    trust: tenant.trust,
    level: choice.level,
    kvm,
    vcpus,
    memoryMib,
    charge,
    hostname: request.hostname ?? defaultHostname(request.pod),
    image: { ...image.resolved, reference: image.reference, signers },
    process: processAtLevel(process, choice.level),
    seccomp: 'default',
    readOnlyRoot: request.readOnlyRoot,
    ...storage,
    ...planWays(question),
    health,
    limits: limitsFor(choice.level, { vcpus, memoryMib }, request),
    scratchBytesMax: SCRATCH_BYTES_MAX,
    logBytes: LOG_BYTES,
    decision: decisionOf(question, policies, { choice, exceptions }),
  }
}

function refuseSuspended(tenant: TenantFacts): void {
  if (!tenant.suspended) return
  throw new Refusal(
    'TENANT_SUSPENDED',
    `Tenant ${tenant.id} is suspended and launches nothing. Its operator can resume it.`,
    { tenant: tenant.id },
  )
}

interface Wanted {
  readonly signers: readonly AcceptedSigner[]
  readonly capabilities: ReturnType<typeof wantedCapabilities>
  readonly vcpus: Vcpus
  readonly memoryMib: MemoryMib
  readonly storedFiles: Plan['storedFiles']
}

function queryOf(question: LaunchQuestion, wanted: Wanted): Omit<LaunchQuery, 'isolation'> {
  const { tenant, request, image, host } = question
  const levels = Object.hasOwn(host.levels, tenant.id) ? (host.levels[tenant.id] ?? []) : []
  const keyIds = new Set(wanted.signers.map((signer) => signer.keyId))
  return {
    principal: request.principal,
    tenant: { id: tenant.id, trust: tenant.trust, suspended: tenant.suspended, levels },
    pod: request.pod,
    image: image.resolved,
    signature: { accepted: wanted.signers.length > 0, keyIds: [...keyIds] },
    capabilities: wanted.capabilities,
    vcpus: wanted.vcpus,
    memoryMib: wanted.memoryMib,
    readOnlyRoot: request.readOnlyRoot,
    sysctls: request.sysctls.map(({ name }) => name),
    files: wanted.storedFiles.map(({ kind, name }) => `${kind}/${name}`),
  }
}

/**
 * The KVM a granted level runs on; null below vm.
 * @throws Refusal
 */
function kvmFor(level: IsolationLevel, host: HostFacts): KvmClass | null {
  if (!host.launchers.includes(level)) {
    throw new Refusal(
      'ISOLATION_NOT_AVAILABLE',
      `Isolation level ${level} is permitted, but this version of Casemate cannot start it. Ask for ${host.launchers.join(' or ')}.`,
      { level, launchers: host.launchers },
    )
  }
  if (level !== 'vm') return null
  if (host.kvm === null) {
    throw new Refusal(
      'ISOLATION_UNAVAILABLE',
      `This host has no usable KVM, and nothing weaker is started instead. ${host.kvmReason ?? ''}`.trim(),
      { level, kvm: null, kvm_reason: host.kvmReason },
    )
  }
  if (host.kvm === 'software' && !host.allowSoftwareKvm) {
    throw new Refusal(
      'ISOLATION_UNAVAILABLE',
      'This host has only software KVM, which counts as no KVM unless root sets allow_software_kvm.',
      { level, kvm: host.kvm, kvm_reason: host.kvmReason },
    )
  }
  return host.kvm
}

/** Early, before an image is built in vain. Two launches at once are told apart by the reservation. */
function refuseOverQuota(quotas: Quotas, charge: Charge): void {
  for (const what of ['pods', 'vcpus', 'memoryMib'] as const) {
    const { used, limit } = quotas[what]
    if (used + charge[what] > limit) throw quotaRefusal(what, charge[what], { used, limit })
  }
}

const QUOTA_NAMES = { pods: 'pods', vcpus: 'vcpus', memoryMib: 'memory_mib' } as const

/** The refusal of both, the early look and the reservation. */
export function quotaRefusal(
  what: keyof Quotas,
  asked: number,
  line: { readonly used: number; readonly limit: number },
): Refusal {
  const name = QUOTA_NAMES[what]
  return new Refusal(
    'QUOTA_EXCEEDED',
    `The tenant's quota of ${line.limit} ${name} has ${Math.max(0, line.limit - line.used)} left, and ${asked} were asked for. Stop pods, or ask the provider for more.`,
    { what: name, asked, used: line.used, limit: line.limit },
  )
}

/** Memory of the VMM beside a small guest's, in MiB. */
const OVERHEAD_MIB_MIN = 64
/** Page tables of host and KVM take 1/256 of the guest's memory in pages of 4 KiB; shadow paging takes several times that. */
const OVERHEAD_SHARE = 32

/** Tasks of a VMM; at the levels below, of the app, which is the host's to count there. */
const TASKS: Readonly<Record<IsolationLevel, number>> = { vm: 32, container: 1024, host: 1024 }

const limitsFor = (
  level: IsolationLevel,
  { vcpus, memoryMib }: { readonly vcpus: Vcpus; readonly memoryMib: MemoryMib },
  { stopTimeoutMs }: LaunchQuestion['request'],
): PlannedLimits => ({
  // A cold boot takes under a second on hardware, minutes on a busy host with software KVM.
  bootMs: 600_000,
  bootLogBytes: 65_536,
  cpuQuotaPercent: vcpus * 100,
  pids: TASKS[level],
  rates: DEVICE_RATES,
  stopMs: stopTimeoutMs ?? DEFAULT_STOP_MS,
  vmmOverheadMib: Math.max(OVERHEAD_MIB_MIN, Math.ceil(memoryMib / OVERHEAD_SHARE)),
})

function decisionOf(
  question: LaunchQuestion,
  policies: ActivePolicies,
  {
    choice,
    exceptions,
  }: { readonly choice: LevelChoice; readonly exceptions: readonly HostException[] },
): Decision {
  const { tenant, request, host } = question
  // judgeImage refused a tenant without a rule; the type does not know.
  if (tenant.imageRule === null) throw new Error('a plan without an image rule')
  return {
    policyIds: choice.policyIds,
    reasons: choice.reasons,
    policySetDigest: policies.digest,
    schemaDigest: policies.schemaDigest,
    cedarVersion: policies.cedarVersion,
    imageRuleDigest: tenant.imageRule.digest,
    imageFloorDigest: host.imageFloor?.digest ?? null,
    hostFindingsDigest: host.findings.digest,
    hostExceptions: exceptions,
    permitted: choice.permitted,
    requested: request.isolation,
  }
}
