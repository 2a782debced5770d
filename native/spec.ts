/**
 * The spec (docs/formats.md section 2): the one document that spawn and the VMM configure themselves
 * from. It is written from a plan and from measured parts; nothing here decides.
 */
import { createHash } from 'node:crypto'
import { type Canonical, canonicalBytes } from '../policy/canonical.ts'
import { type Digest, parseDigest } from '../policy/nouns/digest.ts'
import type { PodNetwork } from '../policy/nouns/network.ts'
import type {
  DeviceRate,
  DeviceRates,
  Plan,
  PlannedHealth,
  PlannedLimits,
  PlannedMount,
  PlannedProcess,
} from '../policy/plan.ts'
import type { SeccompProgram } from './seccomp/compile.ts'
import type { HostDescription, Template, Verity } from './spawn-answers.ts'

export const SPEC_BYTES_MAX = 524_288

/** A verified disk: EROFS data and its tree in one file. */
export interface VerifiedDisk {
  /** Bytes of data and tree together. */
  readonly size: number
  readonly verity: Verity
}

/** What a spec takes of a plan. */
export type SpecPlan = Pick<
  Plan,
  | 'pod'
  | 'tenant'
  | 'level'
  | 'kvm'
  | 'hostname'
  | 'vcpus'
  | 'memoryMib'
  | 'process'
  | 'readOnlyRoot'
  | 'mounts'
  | 'sysctls'
  | 'health'
  | 'limits'
  | 'scratchBytesMax'
  | 'logBytes'
>

/** Everything that a spec is made of. */
export interface SpecParts {
  readonly plan: SpecPlan
  /** As spawn described the host; the spec is good for that host and those files only. */
  readonly host: HostDescription
  /** null boots cold. */
  readonly template: Template | null
  readonly image: VerifiedDisk
  /** null: none. */
  readonly seccomp: SeccompProgram | null
  /** null: the card's link is down. */
  readonly network: PodNetwork | null
  /** Salt and content of its files; null: it has none. */
  readonly files: { readonly size: number; readonly digest: Digest } | null
  /** Bytes of each volume among the plan's mounts, in their order. */
  readonly volumeSizes: readonly number[]
}

export interface Spec {
  readonly bytes: Uint8Array
  /** SHA-256 of the bytes. */
  readonly digest: Digest
}

/** The plan asks for more than a spec holds, or for a level that the host no longer has; codes as in docs/formats.md. */
export class SpecError extends Error {
  override readonly name = 'SpecError'
  readonly code: 'SPEC_TOO_LARGE' | 'CONTAINER_UNAVAILABLE'

  constructor(code: SpecError['code'], message: string) {
    super(message)
    this.code = code
  }
}

const processOf = (process: PlannedProcess): Canonical => ({
  args: process.args,
  env: process.env,
  cwd: process.cwd,
  user: process.user,
  additional_gids: process.additionalGids,
  capabilities: { ...process.capabilities },
  rlimits: process.rlimits.map((limit) => ({ ...limit })),
  no_new_privileges: process.noNewPrivileges,
})

function mountOf(mount: PlannedMount): Canonical {
  const { kind, path } = mount
  if (kind === 'image') return { kind, path }
  if (kind === 'file') {
    const { gid, mode, size, uid } = mount
    return { gid, kind, mode, path, size, uid }
  }
  if (kind === 'empty') return { kind, mode: mount.mode, name: null, path }
  if (kind === 'volume' || kind === 'host') {
    const { name, readOnly, subPath } = mount
    const given = { kind, name, path, read_only: readOnly, sub_path: subPath }
    return mount.kind === 'host' ? { ...given, exec: mount.exec, ids: mount.ids } : given
  }
  const { exec, mode, readOnly, size } = mount
  return { exec, kind, mode, path, read_only: readOnly, size }
}
/** What becomes of an unhealthy pod is not the pod's to know. */
const healthOf = ({ probe, ...times }: PlannedHealth): Canonical => ({
  probe: { ...probe },
  interval_ms: times.intervalMs,
  timeout_ms: times.timeoutMs,
  start_period_ms: times.startPeriodMs,
  start_interval_ms: times.startIntervalMs,
  retries: times.retries,
})

const rateOf = (rate: DeviceRate | null): Canonical =>
  rate && {
    operations: rate.operations && { ...rate.operations },
    bytes: rate.bytes && { ...rate.bytes },
  }

const ratesOf = ({ diskRead, diskWrite, rng }: DeviceRates): Canonical => ({
  disk_read: rateOf(diskRead),
  disk_write: rateOf(diskWrite),
  rng: rateOf(rng),
})

const limitsOf = (limits: PlannedLimits): Canonical => ({
  boot_ms: limits.bootMs,
  boot_log_bytes: limits.bootLogBytes,
  cpu_quota_percent: limits.cpuQuotaPercent,
  pids: limits.pids,
  rates: ratesOf(limits.rates),
  stop_ms: limits.stopMs,
  vmm_overhead_mib: limits.vmmOverheadMib,
})

/** A template without the shape it was built for: the spec's `machine` has that. */
const templateOf = (template: Template): Canonical => ({
  memory: template.memory,
  memory_size: template.memory_size,
  state: template.state,
  state_size: template.state_size,
})

const diskOf = (role: 'init' | 'image', { size, verity }: VerifiedDisk): Canonical => ({
  role,
  access: 'read',
  size,
  verity: { ...verity },
})

/** Disks of volumes, which spawn has. */
const volumesOf = ({ plan, volumeSizes }: SpecParts): readonly Canonical[] =>
  plan.mounts
    .flatMap((mount) => (mount.kind === 'volume' ? [mount] : []))
    .map(({ readOnly }, at) => ({
      role: 'volume',
      access: readOnly ? 'read' : 'read-write',
      size: volumeSizes[at] ?? 0,
    }))

/** Spawn makes the tap that the descriptor stands for. */
const tapOf = (network: PodNetwork | null): readonly Canonical[] =>
  network === null ? [] : [{ role: 'net', access: 'read-write' }]

/** Members that only virtual machines have, and null for each at the levels below. */
function machineParts({ plan, host, template }: SpecParts): Record<string, Canonical> {
  if (plan.level !== 'vm') {
    return { kvm: null, machine: null, vmm: null, kernel: null, template: null }
  }
  return {
    kvm: plan.kvm,
    machine: { vcpus: plan.vcpus, memory_mib: plan.memoryMib, cmdline: host.cmdline },
    vmm: { digest: host.vmm.digest, filters: { ...host.vmm.filters } },
    kernel: { ...host.kernel },
    template: template === null ? null : templateOf(template),
  }
}

/** What a container is run by; null at level vm. @throws SpecError */
function containerParts({ plan, host }: SpecParts): Canonical {
  if (plan.level === 'vm') return null
  if (host.container === null) {
    throw new SpecError('CONTAINER_UNAVAILABLE', host.container_reason ?? 'no containers here')
  }
  const { bundle, digest, runtime } = host.container
  return { bundle, digest, memory_mib: plan.memoryMib, runtime }
}

const appOf = (plan: SpecPlan, seccomp: SeccompProgram | null): Canonical => ({
  name: 'app',
  after: null,
  image: 0,
  mounts: plan.mounts.map(mountOf),
  health: plan.health && healthOf(plan.health),
  process: processOf(plan.process),
  read_only_root: plan.readOnlyRoot,
  seccomp: seccomp && { ...seccomp },
  stop_signal: plan.process.stopSignal,
})

/** @throws SpecError */
export function buildSpec(parts: SpecParts): Spec {
  const { plan, host, image, seccomp, network, files } = parts
  const bytes = canonicalBytes({
    v: 'casemate.spec/1',
    launch_id: plan.pod,
    tenant: plan.tenant,
    level: plan.level,
    node: host.node,
    hostname: plan.hostname,
    ...machineParts(parts),
    container: containerParts(parts),
    descriptors: [
      ...(plan.level === 'vm' ? [diskOf('init', host.init)] : []),
      diskOf('image', image),
      {
        role: 'scratch',
        access: 'read-write',
        ...host.scratch,
        size_max: Math.max(plan.scratchBytesMax, host.scratch.size),
      },
      { role: 'log', access: 'read-write', size: plan.logBytes },
      ...volumesOf(parts),
      ...tapOf(network),
      ...(files === null ? [] : [{ role: 'files', access: 'read', ...files }]),
    ],
    ...(network === null ? {} : { network: { ...network } }),
    apps: [appOf(plan, seccomp)],
    sysctls: plan.sysctls.map((sysctl) => ({ ...sysctl })),
    limits: limitsOf(plan.limits),
  })
  if (bytes.length > SPEC_BYTES_MAX) {
    const asked = `${bytes.length} of at most ${SPEC_BYTES_MAX} bytes`
    throw new SpecError(
      'SPEC_TOO_LARGE',
      `the launch makes a spec of ${asked}: shorten its arguments or environment`,
    )
  }
  const digest = parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`)
  return { bytes, digest }
}
