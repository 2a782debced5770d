/** Hosts that are laid out as files: a good one, to be changed in one point per test. */
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { TestContext } from 'node:test'
import type { HostCheck } from '../../../agent/host/check.ts'
import { examineHost, type HostReport } from '../../../agent/host/report.ts'
import { HostRoot } from '../../../agent/host/root.ts'
import { type HostDescription, readDescription } from '../../../native/spawn-answers.ts'
import { scratch } from '../../audit/harness.ts'
import { DESCRIPTION } from '../spawn-peer.ts'

/** Text by path below the root; null: no such file or directory. */
export type Files = Readonly<Record<string, string | null>>

export const CPU = 'sys/devices/system/cpu'
export const weakness = (name: string): string => `${CPU}/vulnerabilities/${name}`

const NO_SWAP = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n'
export const swaps = (...lines: readonly string[]): string =>
  `${NO_SWAP}${lines.map((line) => `${line}\t8388604\t\t0\t\t-2\n`).join('')}`

export const MOUNTS: readonly string[] = [
  '22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw',
  '28 22 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate',
]

/** VMX with EPT and no nesting, no SMT, no KSM, no swap, version 2 cgroups, nothing open. */
const GOOD: Files = {
  'proc/cpuinfo': 'processor\t: 0\nflags\t\t: fpu vmx sse\nbugs\t\t: mds\n',
  'proc/meminfo': 'MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n',
  'proc/swaps': NO_SWAP,
  'proc/self/mountinfo': `${MOUNTS.join('\n')}\n`,
  'dev/kvm': '',
  'sys/module/kvm_intel/parameters/ept': 'Y\n',
  'sys/module/kvm_intel/parameters/nested': 'N\n',
  'sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
  'sys/kernel/mm/ksm/run': '0\n',
  'sys/kernel/mm/ksm/pages_shared': '0\n',
  'sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory hugetlb pids\n',
  [`${CPU}/smt/active`]: '0\n',
  [weakness('mds')]: 'Mitigation: Clear CPU buffers; SMT disabled\n',
  [weakness('meltdown')]: 'Not affected\n',
  [weakness('l1tf')]: 'Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT disabled\n',
}

/** With SVM; the module for VMX is there too, as in a kernel that has both built in. */
export const AMD: Files = {
  'proc/cpuinfo': 'flags\t\t: fpu svm\n',
  'sys/module/kvm_amd/parameters/npt': '1\n',
  'sys/module/kvm_amd/parameters/nested': '0\n',
}

/** What spawn says of a host with hardware KVM, with changes to what only root can ask. */
export function description(
  host: Partial<HostDescription['host']> = {},
  more: Partial<HostDescription> = {},
): HostDescription {
  const base = readDescription(DESCRIPTION)
  const kvm = { kvm: 'hardware', allow_software_kvm: false } as const
  return { ...base, ...kvm, ...more, host: { ...base.host, ...host } }
}

export function write(root: string, files: Files): void {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(root, name)
    if (text === null) {
      rmSync(file, { recursive: true, force: true })
    } else {
      mkdirSync(path.dirname(file), { recursive: true })
      writeFileSync(file, text)
    }
  }
}

/** The directory of a good host, with changes. */
export function layOut(t: TestContext, changes: Files = {}): string {
  const root = scratch(t)
  write(root, GOOD)
  chmodSync(path.join(root, 'dev/kvm'), 0o600)
  write(root, changes)
  return root
}

export const examineAt = (
  root: string,
  host: HostDescription = description(),
): Promise<HostReport> => examineHost(new HostRoot(root), host)

export async function examine(
  t: TestContext,
  changes: Files = {},
  host: HostDescription = description(),
): Promise<HostReport> {
  return await examineAt(layOut(t, changes), host)
}

/** The check with this id; undefined when there is none. */
export const checkOf = (report: HostReport, id: string): HostCheck | undefined =>
  report.checks.find((check) => check.id === id)

export const severityOf = (report: HostReport, id: string): string =>
  checkOf(report, id)?.severity ?? 'none'
