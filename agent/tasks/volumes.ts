/**
 * Named volumes. Each change, and each reading out, is decided, put on record, and done by spawn for that record's
 * receipt, once. What there is, spawn knows; nothing of it is kept here.
 *
 * Beneath `/v1/tenants/{tenant}/volumes` one change of a tenant's waits for the one before, so that its quota holds.
 */
import { deadlineIn } from '../../audit/index.ts'
import type { VolumeStatus } from '../../native/spawn-answers.ts'
import { SpawnError, type VolumeData } from '../../native/spawn-client.ts'
import {
  decideVolume,
  type PolicyDecision,
  Refusal,
  type VolumeBytes,
  type VolumeName,
  type VolumeOperation,
} from '../../policy/index.ts'
import type { Caller, TenantScope } from '../../tenants/index.ts'
import { type ApiCode, ApiError, notFound } from '../errors.ts'
import { Turns } from '../turns.ts'
import type { ChangeBudget } from './changes.ts'
import { spawnUnavailable } from './host.ts'
import type { Ports } from './ports.ts'
import { actorOf, type Origin, refusalFacts } from './record-parts.ts'
import { isRefusedBySpawn } from './start.ts'
import { sentenceOf } from './tenant-words.ts'
import type { Watch } from './watch.ts'

/** Spawn takes a ticket for at most 30 s. */
const TICKET_MS = 25_000

export interface VolumePorts
  extends Pick<Ports, 'audit' | 'clock' | 'policies' | 'spawn' | 'tenants'> {
  readonly changes: ChangeBudget
  readonly watch: Watch
}

export interface VolumeCall {
  readonly scope: TenantScope
  readonly caller: Caller
  readonly origin: Origin
  readonly volume: VolumeName
  readonly operation: VolumeOperation
  /** Bytes that it is to have, of those operations that say so. */
  readonly sizeBytes: VolumeBytes | null
  /** Which snapshot, of those operations that are about one. */
  readonly snapshot: VolumeName | null
}

/** A volume with its snapshots. */
export interface Volume {
  readonly status: VolumeStatus
  readonly snapshots: readonly VolumeStatus[]
}

const turns = new Turns()

/** Spawn's refusals that are the caller's business, under its own codes. */
const passedOn: Readonly<Record<string, ApiCode>> = {
  HOST_FULL: 'HOST_FULL',
  VOLUME_BUSY: 'VOLUME_BUSY',
  VOLUME_EXISTS: 'VOLUME_EXISTS',
  VOLUME_HAS_SNAPSHOTS: 'VOLUME_HAS_SNAPSHOTS',
  VOLUME_SHRINK: 'VOLUME_SHRINK',
}

/** What spawn says of volumes, as the API says it. */
function refusalOf(error: unknown): unknown {
  if (!(error instanceof SpawnError)) return error
  if (error.code === 'VOLUME_UNKNOWN') return notFound()
  const sentence = sentenceOf(error)
  if (error.code === 'VOLUME_IN_USE') return new Refusal('VOLUME_IN_USE', sentence, {})
  const code = passedOn[error.code]
  if (code === undefined) return spawnUnavailable(error)
  return new ApiError(code, sentence, {}, { cause: error })
}

async function statuses(
  { spawn }: Pick<VolumePorts, 'spawn'>,
  scope: TenantScope,
): Promise<readonly VolumeStatus[]> {
  try {
    return await spawn.volumes(scope.tenant)
  } catch (error) {
    throw refusalOf(error)
  }
}

/** All of a tenant, by name. @throws ApiError SPAWN_UNAVAILABLE */
export async function listVolumes(
  ports: Pick<VolumePorts, 'spawn'>,
  scope: TenantScope,
): Promise<readonly Volume[]> {
  const all = await statuses(ports, scope)
  return all
    .filter(({ snapshot }) => snapshot === null)
    .map((status) => ({
      status,
      snapshots: all.filter((one) => one.volume === status.volume && one.snapshot !== null),
    }))
}

/** @throws ApiError NOT_FOUND, SPAWN_UNAVAILABLE */
export async function findVolume(
  ports: Pick<VolumePorts, 'spawn'>,
  scope: TenantScope,
  name: VolumeName,
): Promise<Volume> {
  const found = (await listVolumes(ports, scope)).find(({ status }) => status.volume === name)
  if (found === undefined) throw notFound()
  return found
}

/** Bytes and names that the tenant has more of after it. */
function added(
  { operation, sizeBytes, volume, snapshot }: VolumeCall,
  all: readonly VolumeStatus[],
) {
  const bytesOf = (which: string | null): number =>
    all.find((one) => one.volume === volume && one.snapshot === which)?.size_bytes ?? 0
  const own = bytesOf(null)
  if (operation === 'create') return { bytes: sizeBytes ?? 0, count: 1 }
  if (operation === 'grow') return { bytes: (sizeBytes ?? 0) - own, count: 0 }
  if (operation === 'snapshot') return { bytes: own, count: 1 }
  if (operation === 'restore') return { bytes: bytesOf(snapshot) - own, count: 0 }
  return { bytes: 0, count: 0 }
}

/** @throws Refusal QUOTA_EXCEEDED */
async function checkQuota(
  ports: VolumePorts,
  call: VolumeCall,
  all: readonly VolumeStatus[],
): Promise<void> {
  const { volumes, volumeMib } = await ports.tenants.getTenant(call.scope)
  const { bytes, count } = added(call, all)
  const used = all.reduce((sum, one) => sum + one.size_bytes, 0)
  const limits = [
    { what: 'volumes', asked: count, used: all.length, limit: volumes, unit: '' },
    { what: 'volume_bytes', asked: bytes, used, limit: volumeMib * 2 ** 20, unit: ' bytes' },
  ]
  const over = limits.find((one) => one.asked > 0 && one.used + one.asked > one.limit)
  if (over === undefined) return
  const { what, asked, limit, unit } = over
  throw new Refusal(
    'QUOTA_EXCEEDED',
    `A tenant's volumes and snapshots may be ${limit}${unit} together; ${over.used} are used, and ${asked} more were asked for. Remove some, or ask for less.`,
    { what, asked, used: over.used, limit },
  )
}

/** What can be seen to be impossible is refused without a record. @throws ApiError */
function checkState(
  { volume, operation, snapshot }: VolumeCall,
  all: readonly VolumeStatus[],
): void {
  const has = (which: string | null): boolean =>
    all.some((one) => one.volume === volume && one.snapshot === which)
  const makes = operation === 'create' ? null : operation === 'snapshot' ? snapshot : undefined
  if (makes !== undefined && has(makes)) {
    const sentence = `The tenant has a ${makes === null ? 'volume' : 'snapshot'} of that name already.`
    throw new ApiError('VOLUME_EXISTS', sentence)
  }
  if (operation === 'create') return
  if (!has(null) || (operation !== 'snapshot' && !has(snapshot))) throw notFound()
}

async function decide(ports: VolumePorts, call: VolumeCall): Promise<PolicyDecision> {
  const { scope, caller, volume, operation, sizeBytes } = call
  const { id, trust, suspended } = await ports.tenants.facts(scope)
  const tenant = { id, trust, suspended }
  const query = { principal: caller, tenant, volume, operation, sizeBytes: sizeBytes ?? 0 }
  const outcome = decideVolume(query, ports.policies)
  if (!(outcome instanceof Refusal)) return outcome
  await ports.audit.append({
    type: 'volume.refused',
    tenant: scope.tenant,
    volume,
    actor: actorOf(caller, call.origin),
    operation,
    refusal: refusalFacts(outcome),
  })
  throw outcome
}

const intentOf = (ports: VolumePorts, call: VolumeCall, permission: PolicyDecision) =>
  ({
    type: 'volume.intent',
    tenant: call.scope.tenant,
    volume: call.volume,
    actor: actorOf(call.caller, call.origin),
    policy: {
      bundle: permission.policySetDigest,
      decision: 'allow',
      determining: permission.policyIds,
      reasons: permission.reasons,
    },
    operation: call.operation,
    size_bytes: call.sizeBytes,
    snapshot: call.snapshot,
    deadline: deadlineIn(ports.clock, TICKET_MS),
  }) as const

/** Decides, records, and has it done by `act` with the receipt; how that went is on record too. */
async function order<T>(
  ports: VolumePorts,
  call: VolumeCall,
  act: (papers: { readonly ticket: string; readonly record: string }) => Promise<T>,
): Promise<T> {
  ports.changes.spend(call.scope.tenant)
  const permission = await decide(ports, call)
  const all = await statuses(ports, call.scope)
  checkState(call, all)
  await checkQuota(ports, call, all)
  const intent = await ports.audit.append(intentOf(ports, call, permission))
  const ended = {
    type: 'volume.ended',
    tenant: call.scope.tenant,
    volume: call.volume,
    intent_index: intent.index,
  } as const
  try {
    const ticket = await ports.audit.receipt(intent.index)
    const done = await act({ ticket, record: Buffer.from(intent.bytes).toString('utf8') })
    await ports.watch.note({ ...ended, outcome: 'done', code: null, text: null })
    return done
  } catch (error) {
    const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : null
    await ports.watch.note({
      ...ended,
      outcome: isRefusedBySpawn(error) ? 'failed' : 'unknown',
      code: typeof code === 'string' ? code : null,
      text: error instanceof Error ? error.message.slice(0, 1024) : null,
    })
    throw refusalOf(error)
  }
}

/**
 * Resolves when it is done and on the host's disk.
 * @throws ApiError NOT_FOUND, VOLUME_EXISTS, VOLUME_IN_USE, VOLUME_BUSY, VOLUME_HAS_SNAPSHOTS, VOLUME_SHRINK, HOST_FULL,
 * TOO_MANY_REQUESTS, SPAWN_UNAVAILABLE
 * @throws Refusal; AuditUnavailable
 */
export const changeVolume = (ports: VolumePorts, call: VolumeCall): Promise<void> =>
  turns.run(call.scope.tenant, () => order(ports, call, (papers) => ports.spawn.volume(papers)))

/** The bytes of a snapshot; the descriptor is the caller's to close. @throws as changeVolume */
export const exportVolume = (ports: VolumePorts, call: VolumeCall): Promise<VolumeData> =>
  turns.run(call.scope.tenant, () =>
    order(ports, call, (papers) => ports.spawn.exportVolume(papers)),
  )
