/** The checks of `casemate doctor`: each says what is, and where something is wrong, what to do. */
import { stat, statfs } from 'node:fs/promises'
import type { HostDescription } from '../../native/spawn-answers.ts'
import { ApiError } from '../errors.ts'
import { floorOf } from '../images/index.ts'
import { describeHost } from './host.ts'
import type { Ports } from './ports.ts'
import { shapeName, type Templates } from './templates.ts'

export interface ExaminePorts extends Ports {
  readonly templates: Pick<Templates, 'pending'>
}

export interface Check {
  readonly id: string
  readonly status: 'ok' | 'warning' | 'failed'
  readonly detail: string
}

function kvmCheck(host: HostDescription): Check {
  const id = 'kvm'
  if (host.kvm === null) {
    return { id, status: 'failed', detail: host.kvm_reason ?? 'there is no usable KVM' }
  }
  if (host.kvm === 'hardware') return { id, status: 'ok', detail: 'hardware' }
  return host.allow_software_kvm
    ? {
        id,
        status: 'warning',
        detail: 'software KVM, allowed by root: slow, and for trying out only',
      }
    : { id, status: 'failed', detail: 'only software KVM, and allow_software_kvm is not set' }
}

/** The device that only spawn may open: with it in hand, what was taken over starts VMs off the record. */
export async function deviceCheck(device = '/dev/kvm'): Promise<readonly Check[]> {
  const id = 'kvm-device'
  const found = await stat(device).catch(() => null)
  // What is missing is in the line about KVM.
  if (found === null) return []
  const mode = `0${(found.mode & 0o777).toString(8)}`
  if ((found.mode & 0o006) === 0)
    return [{ id, status: 'ok', detail: `${device} has mode ${mode}` }]
  const rule = `KERNEL=="kvm", MODE="0600" in /etc/udev/rules.d/99-casemate.rules`
  const detail = `everybody may open ${device} (mode ${mode}), the agent too: chmod 0600 ${device}, and to keep it so ${rule}`
  return [{ id, status: 'failed', detail }]
}

/** What is built, and what is on its way or will not come. */
function templateCheck(host: HostDescription, ports: ExaminePorts): Check {
  const id = 'templates'
  const built = host.templates.map((one) => shapeName(one.vcpus, one.memory_mib))
  const missing = [...ports.templates.pending]
    .filter(([shape]) => !built.includes(shape))
    .map(([shape, state]) =>
      state === 'building'
        ? `building ${shape}: its launches wait for it`
        : `${shape} could not be built and boots cold: the agent's log says why`,
    )
  if (missing.length > 0) {
    return { id, status: 'warning', detail: [...built, ...missing].join(', ') }
  }
  return built.length === 0
    ? { id, status: 'warning', detail: 'none is built: the first launch of a size waits for one' }
    : { id, status: 'ok', detail: built.join(', ') }
}

async function hostChecks(ports: ExaminePorts): Promise<readonly Check[]> {
  try {
    const host = await describeHost(ports.spawn)
    return [
      { id: 'spawn', status: 'ok', detail: `node ${host.node}` },
      kvmCheck(host),
      ...(await deviceCheck()),
      templateCheck(host, ports),
    ]
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    return [{ id: 'spawn', status: 'failed', detail: error.message }, ...(await deviceCheck())]
  }
}

function auditCheck(ports: Ports): Check {
  const { unavailable, size } = ports.audit
  return unavailable === null
    ? { id: 'audit', status: 'ok', detail: `${size} records` }
    : { id: 'audit', status: 'failed', detail: unavailable.message }
}

const mibOf = (bytes: number): number => Math.floor(bytes / 2 ** 20)

async function diskCheck(ports: Ports): Promise<Check> {
  const found = await statfs(ports.files.directory)
  const [free, floor] = [mibOf(found.bavail * found.bsize), mibOf(floorOf(found))]
  if (free >= floor) return { id: 'disk', status: 'ok', detail: `${free} MiB free` }
  const detail = `${free} MiB free; below ${floor} nothing is pulled or built: free disk space`
  return { id: 'disk', status: 'warning', detail }
}

export async function examine(ports: ExaminePorts): Promise<readonly Check[]> {
  const [host, disk] = await Promise.all([hostChecks(ports), diskCheck(ports)])
  const policy: Check = { id: 'policy', status: 'ok', detail: ports.policies.digest }
  return [...host, auditCheck(ports), policy, disk]
}
