/**
 * The checks of `casemate doctor`: the host's safety (agent/host), and whether the agent's own parts
 * work. Each says what is, and where something is wrong, how much it matters and what to do.
 */
import { statfs } from 'node:fs/promises'
import type { HostDescription } from '../../native/spawn-answers.ts'
import type { StoredException } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import { type HostCheck, isFinding, ok, severe, warning } from '../host/check.ts'
import { freeMemory } from '../host/memory.ts'
import { examineDevice } from '../host/report.ts'
import { floorOf } from '../images/index.ts'
import { describeHost } from './host.ts'
import type { Ports } from './ports.ts'
import { shapeName, type Templates } from './templates.ts'

export interface ExaminePorts extends Ports {
  readonly templates: Pick<Templates, 'pending'>
}

/** A check as people see it: `failed` is a severe finding that no exception sets aside. */
export interface Examined {
  readonly id: string
  readonly status: 'ok' | 'warning' | 'failed'
  readonly severity: 'severe' | 'warning' | null
  readonly detail: string
  readonly fix: string | null
  readonly exception: StoredException | null
}

export interface Examination {
  readonly checks: readonly Examined[]
  /** Digest of the host's findings, as launches record it; null when spawn does not answer. */
  readonly findings: string | null
}

/** What is built, and what is on its way or will not come. */
function templateCheck(host: HostDescription, ports: ExaminePorts): HostCheck {
  const id = 'templates'
  const built = host.templates.map((one) => shapeName(one.vcpus, one.memory_mib))
  const missing = [...ports.templates.pending].filter(([shape]) => !built.includes(shape))
  const words = missing.map(([shape, state]) =>
    state === 'building' ? `building ${shape}` : `${shape} could not be built and boots cold`,
  )
  const failed = missing.some(([, state]) => state === 'failed')
  if (missing.length > 0) {
    const fix = failed ? 'The agent’s log says why.' : 'Wait: its launches do as well.'
    return warning(id, [...built, ...words].join(', '), fix)
  }
  return built.length === 0
    ? warning(id, 'none is built', 'Wait: the first launch of a size does as well.')
    : ok(id, built.join(', '))
}

/** Level container is for the tenants whom root's file names: without one it is nobody's loss that there is none. */
function containerCheck({
  container,
  container_reason: reason,
  levels,
}: HostDescription): HostCheck {
  const id = 'containers'
  const tenants = Object.values(levels).filter((names) => names.includes('container')).length
  if (container !== null) return ok(id, `${container.version}, for ${tenants} tenants`)
  if (tenants === 0) return ok(id, 'none are started, and no tenant may have one')
  const fix = 'Install runc, look at `container` of spawn.json, and restart spawn.'
  return warning(id, `none are started: ${reason ?? 'no reason given'}`, fix)
}

function auditCheck(ports: Ports): HostCheck {
  const id = 'audit'
  const { unavailable, size } = ports.audit
  if (unavailable === null) return ok(id, `${size} records`)
  return severe(id, unavailable.message, 'Free disk space, or start the signer: its log says why.')
}

const mibOf = (bytes: number): number => Math.floor(bytes / 2 ** 20)

async function diskCheck(ports: Ports): Promise<HostCheck> {
  const found = await statfs(ports.files.directory)
  const [free, floor] = [mibOf(found.bavail * found.bsize), mibOf(floorOf(found))]
  if (free >= floor) return ok('disk', `${free} MiB free`)
  const reason = `${free} MiB free; below ${floor} nothing is pulled or built`
  return warning('disk', reason, 'Free disk space.')
}

/** What is wrong with the host, as far as can be told; and the digest of it. */
async function hostChecks(
  ports: ExaminePorts,
): Promise<{ readonly checks: readonly HostCheck[]; readonly findings: string | null }> {
  const { root } = ports.safety
  try {
    const host = await describeHost(ports.spawn)
    const report = await ports.safety.examine(host)
    const memory = await freeMemory(root)
    const own = [ok('spawn', `node ${host.node}`), ...report.checks]
    return {
      checks: [...own, memory, templateCheck(host, ports), containerCheck(host)],
      findings: report.digest,
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    const spawn = severe('spawn', error.message, 'Look at logs/spawn.log, and start again.')
    return { checks: [spawn, ...(await examineDevice(root))], findings: null }
  }
}

/** @param exceptions those in force */
function examined(check: HostCheck, exceptions: readonly StoredException[]): Examined {
  const { id, reason: detail } = check
  if (!isFinding(check)) {
    return { id, status: 'ok', severity: null, detail, fix: null, exception: null }
  }
  const { severity, fix } = check
  const own = exceptions.find(({ finding }) => finding === id) ?? null
  const exception = severity === 'severe' ? own : null
  const failed = severity === 'severe' && exception === null
  return { id, status: failed ? 'failed' : 'warning', severity, detail, fix, exception }
}

export async function examine(ports: ExaminePorts): Promise<Examination> {
  const [host, disk, exceptions] = await Promise.all([
    hostChecks(ports),
    diskCheck(ports),
    ports.tenants.activeHostExceptions(),
  ])
  const policy = ok('policy', ports.policies.digest)
  const checks = [...host.checks, auditCheck(ports), policy, disk]
  return {
    checks: checks.map((check) => examined(check, exceptions)),
    findings: host.findings,
  }
}
