/**
 * KVM: its kind, and what opens its fragile parts to guests. With nesting on, or without nested
 * paging, a guest reaches KVM's shadow page tables and nested code, where CVE-2026-53359 and most
 * other escapes were.
 */
import type { HostDescription } from '../../native/spawn-answers.ts'
import { type HostCheck, ok, severe, unknown, warning } from './check.ts'
import type { HostRoot } from './root.ts'

/** KVM's interface since Linux 2.6.22. */
const KVM_API = 12
const DEVICE = 'dev/kvm'

const BOOT_OPTION = '(docs/operating.md, The machine)'

/** Its class, as spawn found it and as launches record it. */
export function kvmClass(host: HostDescription): HostCheck {
  const id = 'kvm'
  if (host.kvm === 'hardware') return ok(id, 'hardware')
  const fix = `Use a machine with VMX or SVM, with nested paging and nesting off ${BOOT_OPTION}.`
  if (host.kvm === null) return severe(id, host.kvm_reason ?? 'There is no usable KVM.', fix)
  return host.allow_software_kvm
    ? warning(id, 'Software KVM, allowed by root: no boundary, for trying out only.', fix)
    : severe(id, 'Only software KVM, and allow_software_kvm is not set.', fix)
}

interface Module {
  readonly name: 'kvm_intel' | 'kvm_amd'
  readonly paging: 'ept' | 'npt'
}

/** The module that drives this processor, or null: a kernel may have both built in. */
async function moduleOf(root: HostRoot): Promise<Module | null> {
  const text = (await root.text('proc/cpuinfo')) ?? ''
  const flags = /^flags\s*:(.*)$/mu.exec(text)?.[1]?.split(' ') ?? []
  if (flags.includes('vmx')) return { name: 'kvm_intel', paging: 'ept' }
  return flags.includes('svm') ? { name: 'kvm_amd', paging: 'npt' } : null
}

async function parameter(root: HostRoot, module: string, name: string): Promise<boolean | null> {
  const text = await root.text(`sys/module/${module}/parameters/${name}`)
  if (text === null || !/^[YyNn01]$/u.test(text)) return null
  return /^[Yy1]$/u.test(text)
}

/** Spawn looks for itself: when it found VMX or SVM and none is seen from here, something is hidden. */
const withoutModule = (id: string, { kvm }: HostDescription): HostCheck =>
  kvm === 'hardware'
    ? unknown(id, 'Which kind of hardware virtualisation this is (/proc/cpuinfo)')
    : ok(id, 'this processor shows neither VMX nor SVM')

export async function nested(root: HostRoot, host: HostDescription): Promise<HostCheck> {
  const id = 'kvm-nested'
  const module = await moduleOf(root)
  if (module === null) return withoutModule(id, host)
  const on = await parameter(root, module.name, 'nested')
  if (on === null) return unknown(id, `Whether nesting is on (nested of ${module.name})`)
  if (!on) return ok(id, 'off')
  return severe(
    id,
    'Nested virtualisation is on: guests reach the part of KVM that most escapes were in.',
    `Load ${module.name} with nested=0, at each boot ${BOOT_OPTION}.`,
  )
}

export async function paging(root: HostRoot, host: HostDescription): Promise<HostCheck> {
  const id = 'kvm-paging'
  const module = await moduleOf(root)
  if (module === null) return withoutModule(id, host)
  const on = await parameter(root, module.name, module.paging)
  if (on === null) return unknown(id, `Whether nested paging is on (${module.paging})`)
  if (on) return ok(id, module.paging)
  return severe(
    id,
    `${module.name} runs with ${module.paging}=0: guests' page tables are shadowed, by the code of CVE-2026-53359.`,
    `Load ${module.name} without ${module.paging}=0; a processor that has none runs no tenants.`,
  )
}

/** null when KVM cannot be opened: then the line about its class says so. */
export function capabilities({ host }: HostDescription): HostCheck | null {
  const id = 'kvm-capabilities'
  if (host.kvm_api === null) return null
  const fix = 'Run Linux 5.12 or newer with its own KVM.'
  if (host.kvm_api !== KVM_API) {
    return severe(id, `KVM speaks version ${host.kvm_api} of its interface, not ${KVM_API}.`, fix)
  }
  if (host.kvm_missing.length === 0) return ok(id, 'all that the VMM uses')
  return severe(id, `KVM lacks what the VMM uses: ${host.kvm_missing.join(', ')}.`, fix)
}

/**
 * The device that only spawn may open: with it in hand, who was taken over starts VMs off the record,
 * and reaches all of KVM from outside any jail. null when there is none.
 */
export async function device(root: HostRoot): Promise<HostCheck | null> {
  const id = 'kvm-device'
  const bits = await root.mode(DEVICE)
  if (bits === null) return null
  const mode = `0${bits.toString(8)}`
  if ((bits & 0o006) === 0) return ok(id, `/dev/kvm has mode ${mode}`)
  const rule = `KERNEL=="kvm", MODE="0600" in /etc/udev/rules.d/99-casemate.rules`
  return severe(
    id,
    `Everybody may open /dev/kvm (mode ${mode}), the agent too: VMs can be started off the record.`,
    `chmod 0600 /dev/kvm, and to keep it so ${rule}.`,
  )
}
