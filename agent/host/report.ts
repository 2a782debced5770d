/**
 * All checks of a host's safety at one moment, read anew each time: what was switched on since the
 * last launch counts for the next one. It takes a few milliseconds.
 */
import { createHash } from 'node:crypto'
import type { HostDescription } from '../../native/spawn-answers.ts'
import { type Canonical, canonicalJson } from '../../policy/canonical.ts'
import {
  type Digest,
  type HostFinding,
  type HostFindings,
  parseDigest,
} from '../../policy/index.ts'
import { type HostCheck, isFinding, unknown } from './check.ts'
import { smt, weaknesses } from './cpu.ts'
import { capabilities, device, kvmClass, nested, paging } from './kvm.ts'
import { cgroups, landlock } from './limits.ts'
import { ksm } from './memory.ts'
import type { HostRoot } from './root.ts'
import { swap } from './swap.ts'

export interface HostReport extends HostFindings {
  readonly kvm: HostDescription['kvm']
  /** Those that passed, too; in the order in which people read them. */
  readonly checks: readonly HostCheck[]
}

type Found = HostCheck | null | readonly HostCheck[]
type Check = (root: HostRoot, host: HostDescription) => Found | Promise<Found>

/** By the id that a check has when it cannot be made. */
const CHECKS: Readonly<Record<string, Check>> = {
  kvm: (_root, host) => kvmClass(host),
  'kvm-nested': nested,
  'kvm-paging': paging,
  'kvm-capabilities': (_root, host) => capabilities(host),
  'kvm-device': device,
  cpu: weaknesses,
  smt,
  ksm,
  swap,
  cgroups,
  landlock: (_root, host) => landlock(host),
}

/** What a check says; one that cannot read what it asks for has found something, too. */
async function guarded(
  id: string,
  check: () => Found | Promise<Found>,
): Promise<readonly HostCheck[]> {
  try {
    const found = await check()
    return [found ?? []].flat()
  } catch (error) {
    const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
    if (typeof code !== 'string') throw error
    return [unknown(id, `What this check reads (${code})`)]
  }
}

/** What can be told without spawn. */
export const examineDevice = (root: HostRoot): Promise<readonly HostCheck[]> =>
  guarded('kvm-device', () => device(root))

/**
 * Where root allowed software KVM there is no boundary that a finding could open further, and that
 * was said aloud: what is severe elsewhere is a warning there.
 */
const isForTryingOut = (host: HostDescription): boolean =>
  host.kvm === 'software' && host.allow_software_kvm

const milder = (check: HostCheck): HostCheck =>
  check.severity === 'severe' ? { ...check, severity: 'warning' } : check

/** Of all reasons on record together, and of one; so a record holds them, however many there are. */
const REASONS_CHARACTERS_MAX = 7500
const REASON_CHARACTERS_MAX = 300

/** What is on record of findings, and what their digest is of. */
export function recordedFindings(
  findings: readonly HostFinding[],
): readonly { readonly id: string; readonly reason: string; readonly severity: string }[] {
  const share = Math.floor(REASONS_CHARACTERS_MAX / Math.max(findings.length, 1))
  const most = Math.min(REASON_CHARACTERS_MAX, share)
  return findings.map(({ id, reason, severity }) => ({
    id,
    reason: reason.slice(0, most),
    severity,
  }))
}

function digestOf(kvm: HostDescription['kvm'], findings: readonly HostFinding[]): Digest {
  const document: Canonical = { findings: recordedFindings(findings), kvm }
  return parseDigest(`sha256:${createHash('sha256').update(canonicalJson(document)).digest('hex')}`)
}

export async function examineHost(root: HostRoot, host: HostDescription): Promise<HostReport> {
  const found = await Promise.all(
    Object.entries(CHECKS).map(([id, check]) => guarded(id, () => check(root, host))),
  )
  const checks = isForTryingOut(host) ? found.flat().map(milder) : found.flat()
  const findings = checks.filter(isFinding).toSorted((a, b) => (a.id < b.id ? -1 : 1))
  return { kvm: host.kvm, checks, findings, digest: digestOf(host.kvm, findings) }
}
