/**
 * Measures and prints. Progress goes to standard error, so that --json leaves one JSON object alone
 * on standard output; without it, a table. Nothing here passes or fails for how long it took.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { missing } from '../peers/images-programs.ts'
import { whyNoContainers, whyNot } from '../system/harness.ts'
import { measureAudit } from './audit.ts'
import { openContainers } from './containers.ts'
import { type Environment, environment } from './environment.ts'
import { type Figure, ratios, type Skipped, table } from './figures.ts'
import { type Opened, plain } from './opened.ts'
import { openPods } from './pods.ts'
import { measurePolicy, measureSignatures } from './policy.ts'
import { noPorts, openPorts } from './ports.ts'
import { measureRootfs } from './rootfs.ts'
import { openVmm } from './vmm.ts'

/** Kept over a reboot by every distribution, so never in memory: fsync must mean something. */
const PLACE = '/var/tmp/casemate-bench-'
const USAGE_ERROR = 2
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

type KvmClass = 'software' | 'hardware'

interface Report {
  readonly v: 'casemate.bench/1'
  readonly time: string
  readonly host: Environment
  /** As casemate-spawn sees it; null when no virtual machine was measured. */
  readonly kvm: KvmClass | null
  readonly figures: readonly Figure[]
  readonly skipped: readonly Skipped[]
  /** Groups that broke; the others were measured all the same. */
  readonly failed: readonly Skipped[]
}

interface Group {
  /** Why it cannot be measured here, or null. */
  readonly skip: () => string | null
  readonly open: (folder: string) => Promise<Opened>
}

const always = (): null => null
const noRegistry = (): string | null => {
  const reason = missing('docker-registry')
  return reason === false ? null : reason
}
let kvm: KvmClass | null = null

const groups: Readonly<Record<string, Group>> = {
  vmm: {
    skip: whyNot,
    open: (folder) =>
      openVmm(folder, (found) => {
        kvm = found
      }),
  },
  pod: { skip: () => whyNot() ?? noRegistry(), open: openPods },
  container: { skip: whyNoContainers, open: openContainers },
  port: { skip: noPorts, open: openPorts },
  policy: { skip: always, open: plain(() => Promise.resolve(measurePolicy())) },
  signature: { skip: always, open: plain(() => Promise.resolve(measureSignatures())) },
  rootfs: { skip: always, open: plain(measureRootfs) },
  audit: { skip: always, open: plain(measureAudit) },
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

async function measureGroup(opened: Opened): Promise<readonly Figure[]> {
  try {
    return await opened.measure()
  } finally {
    await opened.close()
  }
}

async function measureAll(wanted: readonly string[], folder: string): Promise<Report> {
  const time = new Date().toISOString()
  const host = environment(folder)
  const figures: Figure[] = []
  const skipped: Skipped[] = []
  const failed: Skipped[] = []
  const opening: (readonly [string, Promise<Opened>])[] = []
  for (const [name, group] of Object.entries(groups)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    const reason = group.skip()
    if (reason === null) {
      opening.push([name, group.open(folder)])
      continue
    }
    skipped.push({ group: name, reason })
    say(`${name}: skipped: ${reason}`)
  }
  // Templates take a boot each, side by side; nothing is measured before all are there.
  await Promise.allSettled(opening.map(([, opened]) => opened))
  for (const [name, opened] of opening) {
    say(`${name}: measuring`)
    try {
      // oxlint-disable-next-line no-await-in-loop -- what runs beside a measurement is measured too
      figures.push(...(await measureGroup(await opened)))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      failed.push({ group: name, reason })
      say(`${name}: failed: ${reason}`)
    }
  }
  return { v: 'casemate.bench/1', time, host, kvm, figures, skipped, failed }
}

function print({ time, host, kvm: found, figures, skipped, failed }: Report): void {
  const lines = [
    `${time}, commit ${host.commit ?? 'unknown'}${host.changed === true ? ' with changes' : ''}`,
    `${host.cpu}, ${host.cores} cores, ${host.memory_mib} MiB, Linux ${host.kernel}, ${host.file_system}, load ${host.load}`,
    `Node ${host.node}, KVM: ${found ?? 'not measured'}`,
    '',
    ...(figures.length === 0 ? [] : [table(figures)]),
    ...ratios(figures),
    ...skipped.map(({ group, reason }) => `${group}: skipped: ${reason}`),
    ...failed.map(({ group, reason }) => `${group}: failed: ${reason}`),
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

const { values: options } = parseArgs({
  options: { json: { type: 'boolean', default: false }, only: { type: 'string', multiple: true } },
})
const wanted = options.only ?? []
const unknown = wanted.find((name) => !Object.hasOwn(groups, name))
if (unknown === undefined) {
  const folder = mkdtempSync(PLACE)
  chmodSync(folder, 0o711) // agent, signer and worker pass through to their own folders
  // Listeners of `exit` end what was started, also when a signal is what ends us.
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  for (const [signal, code] of Object.entries(SIGNALS)) process.on(signal, () => process.exit(code))
  const report = await measureAll(wanted, folder)
  if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`)
  else print(report)
  if (report.failed.length > 0) process.exitCode = 1
} else {
  say(`there is no group ${unknown}; there are: ${Object.keys(groups).join(', ')}`)
  process.exitCode = USAGE_ERROR
}
