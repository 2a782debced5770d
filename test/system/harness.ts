/**
 * A Casemate host for tests, of real parts: the log with its signer, casemate-spawn with its VMM, a
 * kernel and guest-init, an image built by the worker, and one template that every test restores.
 *
 * Nothing here decides or checks: what a test launches goes to spawn as the agent would send it.
 */
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type AuditLog, openAuditLog } from '../../audit/index.ts'
import { type SeccompCompiler, seccompCompiler } from '../../native/seccomp/compile.ts'
import type { HostDescription, Template } from '../../native/spawn-answers.ts'
import { type SpawnClient, spawnClient } from '../../native/spawn-client.ts'
import { type Artifacts, readArtifacts } from '../../native/up/artifacts.ts'
import { canonicalJson } from '../../policy/canonical.ts'
import type { IsolationLevel } from '../../policy/index.ts'
import { Forge } from './forge.ts'
import { buildDisk, busyboxTar, compile, type DiskFile, probeEntry, runWorker } from './images.ts'
import { type Program, startSigner, startSpawn } from './processes.ts'

const root = path.resolve(import.meta.dirname, '../..')
export const NODE_ID = 'system-test'
/** Whose pods they are, if a test does not say. */
export const TENANT = 'acme'
export const BUSYBOX = '/bin/busybox'
/** Beyond those of `casemate up`, and different for runs at the same time: the kernel counts by user. */
const VM_UIDS = 100
/** Ranges of 65,536 ids, beyond those of `casemate up` and different for runs at the same time. */
const CONTAINERS = 15
const containerBase = (): number => 0x7100_0000 + (process.pid % 1000) * 0x10_0000
const uidBase = (): number => 100_000_000 + (process.pid % 1_000_000) * VM_UIDS

/** Why virtual machines cannot be started here, or null. One sentence, for people. */
export function whyNot(): string | null {
  if (process.geteuid?.() !== 0) return 'not root: spawn makes namespaces, cgroups and user ids'
  try {
    closeSync(openSync('/dev/kvm', 'r+'))
  } catch (error) {
    return `/dev/kvm cannot be used: ${error instanceof Error ? error.message : String(error)}`
  }
  try {
    accessSync(BUSYBOX, constants.X_OK)
  } catch {
    return `${BUSYBOX} is missing: install busybox-static`
  }
  return null
}

/** The template of a machine at level vm. */
export async function vmTemplate(machine: Machine): Promise<Template> {
  const template = await machine.template
  if (template === null) throw new Error('there are no templates below level vm')
  return template
}

/** Why containers cannot be started here, or null. */
export function whyNoContainers(): string | null {
  if (process.geteuid?.() !== 0) return 'not root: spawn makes namespaces, cgroups and user ids'
  for (const file of [BUSYBOX, '/usr/sbin/runc']) {
    try {
      accessSync(file, constants.X_OK)
    } catch {
      return `${file} is missing: run \`npm run setup\``
    }
  }
  return null
}

/** Spawn and what it says of the host. */
export interface SpawnHost {
  readonly spawn: SpawnClient
  readonly program: Program
  readonly host: HostDescription
  /** spawn.json's folders and socket are below it. */
  readonly directory: string
}

export interface Machine extends SpawnHost {
  readonly artifacts: Artifacts
  readonly log: AuditLog
  /** A second log of the trust file, whose key the tests hold: records that no agent would write. */
  readonly forge: Forge
  readonly seccomp: SeccompCompiler
  readonly image: DiskFile
  /** Of the pods that tests launch: whatever all levels have in common is tried by the same tests. */
  readonly level: IsolationLevel
  /** (1, 128 MiB); it takes a cold boot, beside which other things can be done. null below level vm. */
  readonly template: Promise<Template | null>
  /** A path for a file of a test. */
  place(name: string): string
  /**
   * Another spawn on this host that trusts the same logs.
   * @param change lays members over spawn.json @param by is a command that executes it
   */
  another(
    name: string,
    change: Readonly<Record<string, unknown>>,
    by?: readonly string[],
  ): Promise<SpawnHost>
  close(): Promise<void>
}

interface Configured {
  readonly directory: string
  readonly artifacts: Artifacts
  readonly keys: readonly string[]
  readonly uids: number
  readonly level: IsolationLevel
}

/** The members of spawn.json. Root is the agent here; workers are started by the tests themselves. */
const configuration = ({ directory, artifacts, keys, uids, level }: Configured): object => ({
  v: 'casemate.spawn/1',
  node: NODE_ID,
  log_keys: keys,
  allow_software_kvm: artifacts.kernel.endsWith('softkvm'),
  levels: level === 'vm' ? {} : { [TENANT]: [level], other: [level] },
  host_paths: {},
  container: {
    count: CONTAINERS,
    monitor: artifacts.container,
    runtime: '/usr/sbin/runc',
    uid_base: containerBase(),
  },
  agent_uid: 0,
  agent_gid: 0,
  worker_uid: 61_001,
  worker_gid: 61_001,
  vm_uid_base: uids,
  vm_uid_count: VM_UIDS / 2,
  run_dir: path.join(directory, 'run'),
  state_dir: path.join(directory, 'state'),
  template_dir: artifacts.templates,
  uplink: null,
  vmm: artifacts.vmm,
  kernel: artifacts.kernel,
  init: artifacts.init,
  init_verity: { ...artifacts.initVerity },
  scratch: { ...artifacts.scratch },
  volume: { ...artifacts.volume },
  workers: {},
})

async function openSpawn(
  parts: Configured,
  change: Readonly<Record<string, unknown>> = {},
  by: readonly string[] = [],
): Promise<SpawnHost> {
  const { directory, artifacts } = parts
  mkdirSync(directory)
  const config = path.join(directory, 'spawn.json')
  const members = { ...configuration(parts), ...change } as Parameters<typeof canonicalJson>[0]
  writeFileSync(config, canonicalJson(members), { mode: 0o600 })
  const program = await startSpawn(artifacts.spawn, config, by)
  const spawn = spawnClient(path.join(directory, 'run/spawn.sock'))
  const host = await spawn.describe()
  if (host.kvm === null && parts.level === 'vm') {
    await program.end()
    throw new Error(`spawn finds no KVM to use: ${host.kvm_reason ?? ''}`)
  }
  return { spawn, program, host, directory }
}

/**
 * Starts everything and has spawn begin to build the template. Do it once a process.
 * @param level of the pods that tests launch on it
 */
export async function openMachine(level: IsolationLevel = 'vm'): Promise<Machine> {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-system-'))
  chmodSync(directory, 0o755)
  const programs: Program[] = []
  const close = async (log: AuditLog | null): Promise<void> => {
    await log?.close()
    for (const program of programs.toReversed()) await program.end()
    rmSync(directory, { recursive: true })
  }
  try {
    return await openParts(directory, programs, close, level)
  } catch (error) {
    await close(null)
    throw error
  }
}

async function openParts(
  directory: string,
  programs: Program[],
  close: (log: AuditLog | null) => Promise<void>,
  level: IsolationLevel,
): Promise<Machine> {
  const place = (name: string): string => path.join(directory, name)
  mkdirSync(place('signer'))
  const signer = await startSigner(place('signer'), `casemate/${NODE_ID}`)
  programs.push(signer)
  const vkey = signer.ready.slice('ready '.length)
  const forge = new Forge('casemate/forged')
  const artifacts = readArtifacts(root, root)
  const common = { artifacts, keys: [vkey, forge.vkey], level }
  const main = await openSpawn({ ...common, directory: place('spawn'), uids: uidBase() })
  programs.push(main.program)
  const node = { id: NODE_ID, agent: { version: '0.0.0', digest: null }, config: null }
  const log = await openAuditLog({
    directory: place('log'),
    signerSocket: place('signer/signer.sock'),
    vkey,
    node,
  })
  compile('guest/probe', place('probe'))
  const template =
    level === 'vm'
      ? main.spawn.template(1, 128).then((answer) => answer.template)
      : Promise.resolve(null)
  template.catch(() => undefined) // whoever waits for it hears of it
  const image = await buildDisk(place('image'), busyboxTar(BUSYBOX, probeEntry(place('probe'))))
  let others = 0
  return {
    ...main,
    level,
    artifacts,
    log,
    forge,
    template,
    image,
    seccomp: seccompCompiler({
      worker: ({ kind, request, fds }) => runWorker(kind, request, fds),
    }),
    place,
    another: async (name, change, by) => {
      others += 1
      const uids = uidBase() + VM_UIDS / 2 + others * 10
      const parts = { ...common, directory: place(name), uids }
      // Apart from those of the host's own guest: none of these may ever be started elsewhere.
      const templates = `${artifacts.templates}-of-tests`
      const members = { vm_uid_count: 10, template_dir: templates, ...change }
      const found = await openSpawn(parts, members, by)
      programs.push(found.program)
      return found
    },
    close: () => close(log),
  }
}
