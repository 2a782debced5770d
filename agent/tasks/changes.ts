/**
 * Changes to running pods, each on record before it takes effect. Unlike a stop, which must never
 * depend on a disk, they wait for the log. What spawn then refuses is on record as asked for.
 */

import type { RecordBody } from '../../audit/index.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import type { TenantId } from '../../policy/index.ts'
import type { Caller, Pod, TenantScope } from '../../tenants/index.ts'
import { type ApiCode, ApiError } from '../errors.ts'
import { Budget, type Rate } from './budget.ts'
import { spawnUnavailable } from './host.ts'
import type { Pauses } from './pauses.ts'
import type { Ports } from './ports.ts'
import type { Origin } from './record-parts.ts'
import { sentenceOf } from './tenant-words.ts'

/** Recorded changes of one tenant: those in a row, and one more every two seconds. */
export const CHANGES: Rate = { most: 30, refillMs: 2000 }

export interface ChangePorts extends Pick<Ports, 'tenants' | 'spawn' | 'audit'> {
  readonly pauses: Pauses
  readonly changes: ChangeBudget
}

export interface ChangeCall {
  readonly scope: TenantScope
  readonly caller: Caller
  readonly origin: Origin
  readonly pod: Pod['id']
}

/** Bounds what a tenant can write into the log by changing its pods to and fro. */
export class ChangeBudget {
  readonly #budget: Budget

  /** @param now milliseconds that never go back; of no epoch */
  constructor(now: () => number = () => performance.now()) {
    this.#budget = new Budget(now)
  }

  /** @throws ApiError TOO_MANY_REQUESTS */
  spend(tenant: TenantId): void {
    const seconds = Math.ceil(this.#budget.waitMs(tenant, CHANGES) / 1000)
    if (seconds > 0) {
      const sentence = `Pods of this tenant were changed too often. Try again in ${seconds} s.`
      throw new ApiError('TOO_MANY_REQUESTS', sentence, { retry_after_s: seconds })
    }
    this.#budget.spend(tenant, CHANGES)
  }
}

export const conflict = (pod: Pod['id'], state: string): ApiError =>
  new ApiError('POD_STATE_CONFLICT', `Pod ${pod} is ${state}; only one that runs can do that.`, {
    pod,
    state,
  })

/** @throws ApiError POD_STATE_CONFLICT, TenantsError POD_NOT_FOUND */
export async function runningPod(
  ports: Pick<Ports, 'tenants'>,
  { scope, pod: id }: Pick<ChangeCall, 'scope' | 'pod'>,
): Promise<Pod> {
  const pod = await ports.tenants.getPod(scope, id)
  if (pod.state !== 'running') throw conflict(id, pod.state)
  return pod
}

/** Spawn's refusals that are the caller's business, under its own codes. */
const passedOn: Readonly<Record<string, ApiCode>> = {
  PAUSE_NOT_AVAILABLE: 'PAUSE_NOT_AVAILABLE',
  POD_BUSY: 'POD_STATE_CONFLICT',
  POD_PAUSED: 'POD_STATE_CONFLICT',
  HOST_FULL: 'HOST_FULL',
  RESIZE_FAILED: 'RESIZE_FAILED',
  RESIZE_UNCONFIRMED: 'RESIZE_UNCONFIRMED',
  SCRATCH_SHRINK: 'SCRATCH_SHRINK',
  SCRATCH_TOO_LARGE: 'SCRATCH_TOO_LARGE',
}

/** What spawn says about a pod that runs as far as the store knows, as the API says it. */
export function refusalOf(pod: Pod['id'], error: unknown): unknown {
  if (!(error instanceof SpawnError)) return error
  if (error.code === 'POD_NOT_RUNNING') return conflict(pod, 'ending')
  const code = passedOn[error.code]
  if (code === undefined) return spawnUnavailable(error)
  return new ApiError(code, sentenceOf(error), { pod }, { cause: error })
}

/**
 * Puts a change on record and makes it.
 * @throws ApiError TOO_MANY_REQUESTS, or what spawn refused; AuditUnavailable
 */
export async function change(
  ports: ChangePorts,
  { scope, pod }: ChangeCall,
  record: RecordBody,
  act: () => Promise<void>,
): Promise<void> {
  ports.changes.spend(scope.tenant)
  await ports.audit.append(record)
  try {
    await act()
  } catch (error) {
    throw refusalOf(pod, error)
  }
}
