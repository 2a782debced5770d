/**
 * Rows into types. A database file is input like any other: what does not parse is damage, and is
 * said to be, instead of travelling on.
 */
import {
  type Canonical,
  type CanonicalObject,
  canonicalJson,
  isCanonicalObject,
  parseCanonical,
} from '../../policy/canonical.ts'
import {
  type Egress,
  egressWords,
  type PortRange,
  parseAnnotations,
  parseDigest,
  parseEgress,
  parseImageRule,
  parseIsolationLevel,
  parseLabels,
  parsePodId,
  parsePodName,
  parsePortRanges,
  parseRestartRule,
  parseTenantId,
  parseTrust,
  portRangeWords,
  type Quotas,
} from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import { POD_JSON_BYTES_MAX, type Pod, type PodProblem, type Restart } from '../pod.ts'
import { parsePodState } from '../pod-state.ts'
import type { Tenant } from '../tenant.ts'
import type { PodRow, TenantRow } from './tables.ts'

/** @throws TenantsError STORE_CORRUPT when `parse` throws */
export function readRow<T>(table: string, id: string, parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    throw new TenantsError(
      'STORE_CORRUPT',
      `The row ${id} of table ${table} cannot be read; it was changed by hand or damaged. Restore the database from a backup.`,
      { table },
      { cause },
    )
  }
}

const orNull = <T>(value: string | null, parse: (text: string) => T): T | null =>
  value === null ? null : parse(value)

export const quotasOf = (row: TenantRow): Quotas => ({
  vcpus: { used: row.used_vcpus, limit: row.quota_vcpus },
  memoryMib: { used: row.used_memory_mib, limit: row.quota_memory_mib },
  pods: { used: row.used_pods, limit: row.quota_pods },
})

const WORDS_BYTES_MAX = 8192

function wordsOf(text: string): readonly string[] {
  const words = parseCanonical(text, WORDS_BYTES_MAX)
  if (!Array.isArray(words)) throw new TypeError('words are a list')
  return words.map(String)
}

/** What the column holds. */
export const egressColumn = (egress: Egress | null): string | null =>
  egress === null ? null : canonicalJson(egressWords(egress))

/** The same. */
export const portsColumn = (ports: readonly PortRange[]): string | null =>
  ports.length === 0 ? null : canonicalJson(portRangeWords(ports))

/** @throws TenantsError STORE_CORRUPT */
export const tenantOf = (row: TenantRow): Tenant =>
  readRow('tenants', row.id, () => {
    const imageRule = orNull(row.image_rule, parseImageRule)
    if ((imageRule?.digest ?? null) !== row.image_rule_digest) {
      throw new TypeError('the image rule is not the one of its digest')
    }
    return {
      id: parseTenantId(row.id),
      display: row.display,
      trust: parseTrust(row.trust),
      state: row.state === 'active' ? 'active' : 'suspended',
      createdMs: row.created_ms,
      imageRule,
      quotas: quotasOf(row),
      launchesPerMinute: row.quota_launches_per_minute,
      volumes: row.quota_volumes,
      volumeMib: row.quota_volume_mib,
      egress: orNull(row.egress, (text) => parseEgress(wordsOf(text))),
      ports: parsePortRanges(row.ports === null ? [] : wordsOf(row.ports)),
    }
  })

function problemOf(text: string): PodProblem {
  const value = parseCanonical(text, POD_JSON_BYTES_MAX)
  if (isObject(value)) {
    const { code, message, stage, facts } = value
    if (typeof code === 'string' && typeof message === 'string') {
      return {
        code,
        message,
        ...(typeof stage === 'string' ? { stage } : {}),
        ...(isObject(facts) ? { facts } : {}),
      }
    }
  }
  throw new TypeError('a problem has a code and a message')
}

const isObject = (value: Canonical | undefined): value is CanonicalObject =>
  value !== undefined && value !== null && typeof value === 'object' && isCanonicalObject(value)

function objectOf(text: string): object {
  const value: unknown = JSON.parse(text)
  if (typeof value === 'object' && value !== null) return value
  throw new TypeError('labels and annotations are objects')
}

function restartOf(row: PodRow): Restart | null {
  const rule = orNull(row.restart_rule, parseRestartRule)
  if (rule === null) return null
  return { rule, streak: row.restart_streak, dueMs: row.restart_due_ms }
}

/** @throws TenantsError STORE_CORRUPT */
export const podOf = (row: PodRow): Pod =>
  readRow('pods', row.id, () => ({
    id: parsePodId(row.id),
    origin: parsePodId(row.origin),
    attempt: row.attempt,
    name: orNull(row.name, parsePodName),
    labels: parseLabels(objectOf(row.labels)),
    annotations: parseAnnotations(objectOf(row.annotations)),
    restart: restartOf(row),
    stopAsked: row.stop_asked === 1,
    tenant: parseTenantId(row.tenant),
    state: parsePodState(row.state),
    identity: row.identity,
    imageReference: row.image_reference,
    imageDigest: orNull(row.image_digest, parseDigest),
    level: orNull(row.level, parseIsolationLevel),
    specDigest: orNull(row.spec_digest, parseDigest),
    recordIndex: row.record_index,
    charge: row.reserved === 1 ? { vcpus: row.vcpus, memoryMib: row.memory_mib, pods: 1 } : null,
    createdMs: row.created_ms,
    startedMs: row.started_ms,
    endedMs: row.ended_ms,
    exit: orNull(row.exit, (text) => parseCanonical(text, POD_JSON_BYTES_MAX)),
    problem: orNull(row.problem, problemOf),
    facts: orNull(row.facts, (text) => parseCanonical(text, POD_JSON_BYTES_MAX)),
    stopRecorded: row.stop_recorded === 1,
  }))

/**
 * Canonical JSON of bounded size for a column.
 * @throws NotCanonical, RangeError
 */
export function jsonColumn(value: Canonical): string {
  const text = canonicalJson(value)
  if (Buffer.byteLength(text) > POD_JSON_BYTES_MAX) {
    throw new RangeError(`a pod's JSON is limited to ${POD_JSON_BYTES_MAX} bytes`)
  }
  return text
}
