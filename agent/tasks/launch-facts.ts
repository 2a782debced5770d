/** What `inspect` shows of a launch: the decision and the parts, in a form for people. */
import type { HostDescription, Template } from '../../native/spawn-answers.ts'
import type { Canonical } from '../../policy/canonical.ts'
import type { Plan } from '../../policy/index.ts'

export const launchFacts = (
  plan: Plan,
  host: HostDescription,
  template: Template | null,
): Canonical => ({
  kvm: plan.kvm,
  kernel: host.kernel.digest,
  vmm: host.vmm.digest,
  boot: template === null ? 'cold' : 'template',
  vcpus: plan.vcpus,
  memory_mib: plan.memoryMib,
  hostname: plan.hostname,
  args: plan.process.args,
  user: plan.process.user,
  capabilities: plan.process.capabilities.bounding,
  policies: plan.decision.policyIds,
  reasons: plan.decision.reasons,
  permitted: plan.decision.permitted,
  signers: plan.image.signers.map(({ keyId, key, rule, form }) => ({ keyId, key, rule, form })),
})
