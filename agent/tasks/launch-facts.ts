/** What `inspect` shows of a launch: the decision and the parts, in a form for people. */
import type { HostDescription, Template } from '../../native/spawn-answers.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { DEFAULT_STOP_MS, type Plan, type PodNetwork, SIGTERM } from '../../policy/index.ts'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import type { OpenRootImage, Rootfs } from '../images/index.ts'
import { healthFacts } from './health-facts.ts'

/** What a spec is made of, but for what the spec alone needs. */
export interface LaunchParts {
  readonly plan: Plan
  readonly host: HostDescription
  readonly rootfs: Rootfs
  /** null: a cold boot. */
  readonly template: Template | null
  readonly network: PodNetwork | null
}

/** What the pod is run by. Below level vm the whole image is hashed when it is attached, and not as it is read. */
const partsOf = (plan: Plan, host: HostDescription) =>
  plan.level === 'vm'
    ? { kvm: plan.kvm, kernel: host.kernel.digest, vmm: host.vmm.digest }
    : { kvm: null, image_hashed: 'when attached', ...host.container }

const bootOf = (plan: Plan, template: Template | null): 'cold' | 'template' | null =>
  plan.level !== 'vm' ? null : template === null ? 'cold' : 'template'

export const launchFacts = ({ plan, host, template, rootfs, network }: LaunchParts): Canonical => ({
  ...partsOf(plan, host),
  root_image: rootfs.rootfsKey,
  root_image_bytes: rootfs.size,
  boot: bootOf(plan, template),
  vcpus: plan.vcpus,
  memory_mib: plan.memoryMib,
  scratch_bytes: host.scratch.size,
  hostname: plan.hostname,
  network: network && { ...network },
  args: plan.process.args,
  user: plan.process.user,
  mounts: plan.mounts.map((mount) => ({ ...mount })),
  sysctls: plan.sysctls.map((sysctl) => ({ ...sysctl })),
  stop_signal: plan.process.stopSignal,
  stop_timeout_ms: plan.limits.stopMs,
  health: healthFacts(plan.health),
  capabilities: plan.process.capabilities.bounding,
  policies: plan.decision.policyIds,
  reasons: plan.decision.reasons,
  permitted: plan.decision.permitted,
  signers: plan.image.signers.map(({ keyId, key, rule, form }) => ({ keyId, key, rule, form })),
})

function numberOf({ facts }: Pod, name: string): number | null {
  const found: unknown =
    typeof facts === 'object' && facts !== null ? Reflect.get(facts, name) : null
  return typeof found === 'number' ? found : null
}

/** What the pod is sent first when it is told to stop. */
export const stopSignalOf = (pod: Pod): number => numberOf(pod, 'stop_signal') ?? SIGTERM

/** From asking to killing when nobody says otherwise, ms. */
export const stopMsOf = (pod: Pod): number => numberOf(pod, 'stop_timeout_ms') ?? DEFAULT_STOP_MS

/** The root image that a pod has open, as its facts say; null before there were any. */
export function rootImageOf({
  scope,
  pod: { facts },
}: {
  readonly scope: TenantScope
  readonly pod: Pod
}): OpenRootImage | null {
  if (typeof facts !== 'object' || facts === null) return null
  const key: unknown = Reflect.get(facts, 'root_image')
  const bytes: unknown = Reflect.get(facts, 'root_image_bytes')
  if (typeof key !== 'string') return null
  // Pods of earlier agents have no size in their facts; while the cache has their image, that counts.
  return { tenant: scope.tenant, key, bytes: typeof bytes === 'number' ? bytes : 0 }
}
