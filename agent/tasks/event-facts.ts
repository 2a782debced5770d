/**
 * What an event says of its record. A record may name what is the host's alone (process ids, addresses, digests of its
 * programs); an event goes to tenants, so each type lists what of it goes there. A type that is not listed is an event
 * without facts.
 */
import type { RecordType } from '../../audit/index.ts'
import { type Canonical, type CanonicalObject, isCanonicalObject } from '../../policy/canonical.ts'
import { exitWords, wordsOf } from './tenant-words.ts'

/** Name of the fact -> where it is in the record. */
type Picked = Readonly<Record<string, readonly string[]>>

const image: Picked = { image: ['image', 'ref'], digest: ['image', 'manifest'] }
const refusal: Picked = { code: ['refusal', 'code'], message: ['refusal', 'message'] }
const exec: Picked = { exec: ['exec_id'] }
const finding: Picked = { finding: ['finding'] }
const token: Picked = { token: ['token', 'jti'] }

const FACTS: Partial<Readonly<Record<RecordType, Picked>>> = {
  'launch.requested': { image: ['image_ref'], level: ['level_requested'], restart: ['restart'] },
  'launch.intent': { ...image, level: ['isolation', 'level'] },
  'launch.started': { start_us: ['start_us'] },
  'launch.failed': { stage: ['stage'], code: ['code'], message: ['message'] },
  'launch.refused': { ...refusal, image: ['image', 'ref'], count: ['folded', 'count'] },
  'launch.exited': {
    how: ['exit', 'how'],
    value: ['exit', 'value'],
    cause: ['exit', 'cause'],
    text: ['exit', 'text'],
    reason: ['reason'],
    duration_us: ['duration_us'],
  },
  'launch.unhealthy': {
    action: ['action'],
    answer: ['answer'],
    failing_streak: ['failing_streak'],
    since: ['since'],
  },
  'launch.orphaned': { found: ['found'], action: ['action'] },
  'launch.stop_requested': { timeout_ms: ['timeout_ms'] },
  'launch.signal_requested': { signal: ['signal'] },
  'launch.resize_requested': { scratch_bytes: ['scratch_bytes'] },
  'launch.removed': { reason: ['reason'] },
  'image.pulled': { digest: ['manifest'], layers: ['layers'], bytes: ['bytes'] },
  'image.evicted': { files: ['files'], bytes: ['bytes'], reason: ['reason'] },
  'exec.intent': {
    ...exec,
    program: ['program'],
    errand: ['errand'],
    user: ['user'],
    terminal: ['terminal'],
  },
  'exec.refused': refusal,
  'exec.ended': { ...exec, exit: ['exit'], reason: ['reason'], duration_us: ['duration_us'] },
  'file.stored': { kind: ['kind'], name: ['name'], version: ['version'] },
  'file.removed': { kind: ['kind'], name: ['name'], version: ['version'] },
  'file.refused': refusal,
  'tenant.created': { trust: ['trust'] },
  'tenant.changed': { changed: ['changed'], state: ['state'], trust: ['trust'] },
  'token.issued': { ...token, subject: ['token', 'sub'], expires: ['token', 'expires'] },
  'token.revoked': token,
  'host.examined': { findings: ['findings'] },
  'host.exception_added': { ...finding, reason: ['reason'], until: ['until'] },
  'host.exception_removed': finding,
  'host.drain_started': { until: ['until'] },
  'host.drained': { ended: ['ended'], killed: ['killed'], left: ['left'] },
  'agent.stop': { reason: ['reason'] },
}

const isRecordType = (type: string): type is RecordType => Object.hasOwn(FACTS, type)

const at = (record: Canonical, path: readonly string[]): Canonical =>
  path.reduce<Canonical>((found, name) => {
    if (found === null || typeof found !== 'object' || !isCanonicalObject(found)) return null
    return Object.hasOwn(found, name) ? (found[name] ?? null) : null
  }, record)

const pick = (record: Canonical, picked: Picked): CanonicalObject =>
  Object.fromEntries(Object.entries(picked).map(([name, path]) => [name, at(record, path)]))

const textAt = (record: Canonical, name: string): string => {
  const found = at(record, [name])
  return typeof found === 'string' ? found : ''
}

/** Who did it, without where from. */
const actorOf = (record: Canonical): CanonicalObject | null => {
  const sub = at(record, ['actor', 'sub'])
  return sub === null ? null : { sub, kind: at(record, ['actor', 'kind']) }
}

/** What of it a tenant may read. */
function readable(type: RecordType, facts: CanonicalObject): Canonical {
  if (type === 'launch.exited') return exitWords(facts)
  const { code = null, message = null } = facts
  return type === 'launch.failed' && typeof code === 'string' && typeof message === 'string'
    ? { ...facts, message: wordsOf(code, message) }
    : facts
}

export interface EventAbout {
  readonly type: string
  readonly time: string
  /** null: the host's. */
  readonly tenant: string | null
  readonly actor: CanonicalObject | null
  readonly facts: Canonical
}

/** What is said of a record. */
export function aboutRecord(record: Canonical): EventAbout {
  const type = textAt(record, 'type')
  return {
    type,
    time: textAt(record, 'time'),
    tenant: textAt(record, 'tenant') || null,
    actor: actorOf(record),
    facts: isRecordType(type) ? readable(type, pick(record, FACTS[type] ?? {})) : {},
  }
}
