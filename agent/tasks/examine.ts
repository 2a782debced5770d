/** The checks of `casemate doctor`: each says what is, and where something is wrong, what to do. */
import { statfs } from 'node:fs/promises'
import type { HostDescription } from '../../native/spawn-answers.ts'
import { ApiError } from '../errors.ts'
import { floorOf } from '../images/index.ts'
import { describeHost } from './host.ts'
import type { Ports } from './ports.ts'

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

async function hostChecks(ports: Ports): Promise<readonly Check[]> {
  try {
    const host = await describeHost(ports.spawn)
    const shapes = host.templates.map((one) => `${one.vcpus} vCPU ${one.memory_mib} MiB`).join(', ')
    return [
      { id: 'spawn', status: 'ok', detail: `node ${host.node}` },
      kvmCheck(host),
      shapes === ''
        ? { id: 'templates', status: 'warning', detail: 'none is built: launches boot cold' }
        : { id: 'templates', status: 'ok', detail: shapes },
    ]
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    return [{ id: 'spawn', status: 'failed', detail: error.message }]
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

export async function examine(ports: Ports): Promise<readonly Check[]> {
  const [host, disk] = await Promise.all([hostChecks(ports), diskCheck(ports)])
  const policy: Check = { id: 'policy', status: 'ok', detail: ports.policies.digest }
  return [...host, auditCheck(ports), policy, disk]
}
