/** Has spawn build the templates of the catalogue, and puts on record what they are. */
import type { HostDescription, Template } from '../../native/spawn-answers.ts'
import type { Ports } from './ports.ts'
import { textDigest } from './record-parts.ts'

/** The shapes that launches restore from; every other one boots cold. */
const CATALOGUE = [
  { vcpus: 1, memory_mib: 128 },
  { vcpus: 2, memory_mib: 256 },
] as const

const built = (template: Template, host: HostDescription, kvm: 'software' | 'hardware') =>
  ({
    type: 'template.built',
    vcpus: template.vcpus,
    memory_mib: template.memory_mib,
    kernel: host.kernel.digest,
    cmdline: textDigest(host.cmdline),
    vmm: host.vmm.digest,
    init_root: host.init.verity.root,
    kvm,
    memory: template.memory,
    memory_size: template.memory_size,
    state: template.state,
    state_size: template.state_size,
  }) as const

/** Builds what is missing, one after the other. A template that cannot be built is a slower launch. */
export async function buildTemplates(ports: Ports): Promise<void> {
  const host = await ports.spawn.describe()
  const { kvm } = host
  if (kvm === null || (kvm === 'software' && !host.allow_software_kvm)) return
  const missing = CATALOGUE.filter(
    (shape) =>
      !host.templates.some(
        (one) => one.vcpus === shape.vcpus && one.memory_mib === shape.memory_mib,
      ),
  )
  for (const { vcpus, memory_mib: memoryMib } of missing) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- a build takes a whole CPU
      const template = await ports.spawn.template(vcpus, memoryMib)
      // oxlint-disable-next-line no-await-in-loop
      await ports.audit.append(built(template, host, kvm))
      ports.log.info({ vcpus, memoryMib }, 'template built')
    } catch (error) {
      ports.log.warn({ err: error, vcpus, memoryMib }, 'no template: this shape boots cold')
    }
  }
}
