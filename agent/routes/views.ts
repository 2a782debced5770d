/** What is stored, as it goes over the wire. */
import type { PodHealth } from '../../native/pod-health.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { egressWords, portRangeWords } from '../../policy/index.ts'
import {
  isFinal,
  isOver,
  type Pod,
  type StoredException,
  type Tenant,
} from '../../tenants/index.ts'
import type { Examined } from '../tasks/examine.ts'
import { isChecked, type LastCheck, lastOf } from '../tasks/health-facts.ts'
import { exactOf, exitWords, wordsOf } from '../tasks/tenant-words.ts'
import type { Volume } from '../tasks/volumes.ts'

const instant = (ms: number | null): string | null =>
  ms === null ? null : new Date(ms).toISOString()

export interface PodView {
  readonly id: string
  readonly name: string | null
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly launch: string
  readonly attempt: number
  readonly restart: {
    readonly rule: string
    readonly in_a_row: number
    readonly due: string | null
  } | null
  readonly tenant: string
  readonly state: string
  readonly health: HealthView | null
  readonly image: { readonly reference: string; readonly digest: string | null }
  readonly isolation: string | null
  readonly identity: string
  readonly spec: string | null
  readonly record: number | null
  readonly created: string | null
  readonly started: string | null
  readonly ended: string | null
  readonly exit: Canonical
  readonly problem: { readonly code: string; readonly message: string } | null
  readonly facts: Canonical
}

/** As people know it: a running pod may stand still, and one that has ended may wait for its next start. */
function stateOf(pod: Pod, paused: boolean): string {
  if (pod.state === 'running') return paused ? 'paused' : 'running'
  return isFinal(pod.state) && !isOver(pod) ? 'restarting' : pod.state
}

const problemView = ({ problem }: Pick<Pod, 'problem'>): PodView['problem'] =>
  problem && {
    code: problem.code,
    message: wordsOf(exactOf(problem.code, problem.facts ?? {}), problem.message),
  }

/** How it is, of a running pod that is asked. */
export interface HealthView {
  readonly state: string
  readonly since: string | null
  readonly failing_streak: number
  /** null: no check has come to its end. */
  readonly last: LastCheck | null
}

function healthOf(pod: Pod, health: PodHealth | null): HealthView | null {
  if (pod.state !== 'running' || isChecked(pod) !== true) return null
  if (health === null) {
    return { state: 'starting', since: instant(pod.startedMs), failing_streak: 0, last: null }
  }
  const { state, streak, sinceMs, answer, output } = health
  return { state, since: instant(sinceMs), failing_streak: streak, last: lastOf(answer, output) }
}

/** @param pod the newest start; @param paused whether spawn has it stand still; nothing but a running pod can; @param health
 * what its VMM said last */
export const podView = (pod: Pod, paused = false, health: PodHealth | null = null): PodView => ({
  id: pod.origin,
  name: pod.name,
  labels: pod.labels,
  annotations: pod.annotations,
  launch: pod.id,
  attempt: pod.attempt,
  restart: pod.restart && {
    rule: pod.restart.rule,
    in_a_row: pod.restart.streak,
    due: instant(pod.restart.dueMs),
  },
  tenant: pod.tenant,
  state: stateOf(pod, paused),
  health: healthOf(pod, health),
  image: { reference: pod.imageReference, digest: pod.imageDigest },
  isolation: pod.level,
  identity: pod.identity,
  spec: pod.specDigest,
  record: pod.recordIndex,
  created: instant(pod.createdMs),
  started: instant(pod.startedMs),
  ended: instant(pod.endedMs),
  exit: exitWords(pod.exit),
  problem: problemView(pod),
  facts: pod.facts,
})

/** One of a pod's starts, the pod's common facts left out. */
export const startView = ({ id, attempt, state, recordIndex, ...pod }: Pod): object => ({
  launch: id,
  attempt,
  state,
  record: recordIndex,
  started: instant(pod.startedMs),
  ended: instant(pod.endedMs),
  exit: exitWords(pod.exit),
  problem: problemView(pod),
})

export interface VolumeView {
  readonly name: string
  readonly size_bytes: number
  readonly used_bytes: number
  readonly created: string | null
  readonly vm_only: boolean
  readonly pod: string | null
  readonly snapshots: readonly {
    readonly name: string
    readonly size_bytes: number
    readonly used_bytes: number
    readonly created: string | null
    readonly vm_only: boolean
  }[]
}

export const volumeView = ({ status, snapshots }: Volume): VolumeView => ({
  name: status.volume,
  size_bytes: status.size_bytes,
  used_bytes: status.used_bytes,
  created: instant(status.made_ms),
  vm_only: status.machine,
  pod: status.pod,
  snapshots: snapshots.map((one) => ({
    name: one.snapshot ?? '',
    size_bytes: one.size_bytes,
    used_bytes: one.used_bytes,
    created: instant(one.made_ms),
    vm_only: one.machine,
  })),
})

export const tenantView = (tenant: Tenant): object => ({
  id: tenant.id,
  display: tenant.display,
  trust: tenant.trust,
  state: tenant.state,
  created: instant(tenant.createdMs),
  quotas: {
    vcpus: tenant.quotas.vcpus,
    memory_mib: tenant.quotas.memoryMib,
    pods: tenant.quotas.pods,
    launches_per_minute: { limit: tenant.launchesPerMinute },
    volumes: { limit: tenant.volumes },
    volume_mib: { limit: tenant.volumeMib },
  },
  egress: egressWords(tenant.egress),
  ports: portRangeWords(tenant.ports),
  image_rule:
    tenant.imageRule === null
      ? null
      : { digest: tenant.imageRule.digest, rule: JSON.parse(tenant.imageRule.text) as unknown },
})

export const exceptionView = (exception: StoredException, nowMs: number): object => ({
  finding: exception.finding,
  reason: exception.reason,
  until: instant(exception.untilMs),
  created: instant(exception.createdMs),
  by: exception.identity,
  record: exception.record,
  state: exception.untilMs > nowMs ? 'active' : 'expired',
})

/** An examination's exceptions are those in force. */
export const checkView = ({ id, status, severity, detail, fix, exception }: Examined): object => ({
  id,
  status,
  severity,
  detail,
  fix,
  exception: exception === null ? null : exceptionView(exception, exception.createdMs),
})
