/** What spawn answers, parsed (docs/formats.md sections 5 and 6). Spawn is root: it is still read strictly. */

import { DEVICE_COUNTERS, DEVICES, MACHINE_COUNTERS, USAGE, type Usage } from './counters.ts'
import {
  BadShape,
  boolean,
  digest,
  hex,
  integer,
  list,
  type Members,
  members,
  nullable,
  oneOf,
  text,
} from './shape.ts'

/** Tenants in root's level file, as native/ticket bounds it. */
const LEVELS_MAX = 4096
/** Entries of root's list of paths, as native/spawn bounds it. */
const HOST_PATHS_MAX = 1024

export interface Verity {
  /** Blocks of 4096 bytes of data; the tree follows them. */
  readonly data_blocks: number
  /** Hex, without a prefix. */
  readonly root: string
  readonly salt: string
}

/** A volume, or a snapshot of one. */
export interface VolumeStatus {
  readonly volume: string
  /** null: the volume itself. */
  readonly snapshot: string | null
  readonly size_bytes: number
  /** What it takes of the host's disk. */
  readonly used_bytes: number
  readonly made_ms: number
  /** A virtual machine could write to it: only virtual machines get it. */
  readonly machine: boolean
  /** Launch id of the pod that has it. */
  readonly pod: string | null
}

export interface Template {
  readonly vcpus: number
  readonly memory_mib: number
  readonly memory: string
  readonly memory_size: number
  readonly state: string
  readonly state_size: number
}

/** What only root can ask this host about its safety; the rest everybody may read. */
export interface RootFacts {
  /** Each VM has the threads of a core to itself. */
  readonly core_scheduling: boolean
  /** Version of KVM's interface; null without a /dev/kvm that opens. */
  readonly kvm_api: number | null
  /** Capabilities that the VMM uses and this KVM lacks, as `IRQFD`. */
  readonly kvm_missing: readonly string[]
  /** Landlock's ABI; null without it. */
  readonly landlock: number | null
  /** VMs' memory is kept out of swap. */
  readonly swap_limit: boolean
}

/** What runs containers on a host: digests of the monitor, of the OCI runtime, and of what all bundles share. */
export interface ContainerParts {
  readonly bundle: string
  readonly digest: string
  readonly runtime: string
  /** What the runtime says of its version. */
  readonly version: string
}

/** What root's list says of a path of the host. */
export interface HostPathEntry {
  readonly tenants: readonly string[]
  /** First id on disk of who writes there; null: nobody writes. */
  readonly ids: number | null
  /** Whether programs in it may be started. */
  readonly exec: boolean
}

/** What this host can do, and with which exact parts. */
export interface HostDescription {
  readonly node: string
  readonly boot_id: string
  readonly kvm: 'software' | 'hardware' | null
  /** Why `kvm` is null; a sentence. */
  readonly kvm_reason: string | null
  readonly allow_software_kvm: boolean
  readonly host: RootFacts
  readonly vmm: {
    readonly digest: string
    readonly filters: { readonly control: string; readonly io: string; readonly vcpu: string }
  }
  readonly kernel: { readonly digest: string; readonly size: number }
  readonly cmdline: string
  /** null: it starts no containers. */
  readonly container: ContainerParts | null
  /** Why `container` is null; a sentence. */
  readonly container_reason: string | null
  readonly init: { readonly size: number; readonly verity: Verity }
  /** The empty file system that every scratch disk starts as: its block digest and size in bytes. */
  readonly scratch: { readonly blocks: string; readonly size: number }
  readonly templates: readonly Template[]
  readonly levels: Readonly<Record<string, readonly string[]>>
  /** Paths of the host by name, as root lists them; not where they are. */
  readonly host_paths: Readonly<Record<string, HostPathEntry>>
}

export const EXIT_WAYS = ['code', 'signal', 'oom', 'vmm', 'failure'] as const

/** How a pod ended. `guest_reported` says whose word it is: the guest's, or what the host saw. */
export interface PodExit {
  readonly how: (typeof EXIT_WAYS)[number]
  readonly value: number
  readonly guest_reported: boolean
  readonly cause: string
  readonly text: string | null
}

export interface PodStatus {
  readonly pod: string
  readonly tenant: string
  readonly spec: string
  readonly pid: number
  readonly state: 'running' | 'exited'
  /** Running, and all of it stands still. */
  readonly paused: boolean
  /** Of the disk that it may write to; null when it has ended. */
  readonly scratch_bytes: number | null
  readonly exit: PodExit | null
}

export function readVerity(value: unknown, at: string): Verity {
  const found = members(value, at, ['data_blocks', 'root', 'salt'])
  return {
    data_blocks: integer(found['data_blocks'], `${at}.data_blocks`, 1),
    root: hex(found['root'], `${at}.root`),
    salt: hex(found['salt'], `${at}.salt`),
  }
}

export function readTemplate(value: unknown, at: string): Template {
  const names = ['vcpus', 'memory_mib', 'memory', 'memory_size', 'state', 'state_size']
  const found = members(value, at, names)
  return {
    vcpus: integer(found['vcpus'], `${at}.vcpus`, 1, 256),
    memory_mib: integer(found['memory_mib'], `${at}.memory_mib`, 1),
    memory: digest(found['memory'], `${at}.memory`),
    memory_size: integer(found['memory_size'], `${at}.memory_size`, 1),
    state: digest(found['state'], `${at}.state`),
    state_size: integer(found['state_size'], `${at}.state_size`, 1),
  }
}

function readVmm(value: unknown, at: string): HostDescription['vmm'] {
  const vmm = members(value, at, ['digest', 'filters'])
  const filters = members(vmm['filters'], `${at}.filters`, ['control', 'io', 'vcpu'])
  return {
    digest: digest(vmm['digest'], `${at}.digest`),
    filters: {
      control: digest(filters['control'], `${at}.filters.control`),
      io: digest(filters['io'], `${at}.filters.io`),
      vcpu: digest(filters['vcpu'], `${at}.filters.vcpu`),
    },
  }
}

const version = (value: unknown, at: string): number | null =>
  nullable(value, (number) => integer(number, at, 0, 65_535))

function readRootFacts(value: unknown): RootFacts {
  const names = ['core_scheduling', 'kvm_api', 'kvm_missing', 'landlock', 'swap_limit']
  const found = members(value, 'host', names)
  return {
    core_scheduling: boolean(found['core_scheduling'], 'host.core_scheduling'),
    kvm_api: version(found['kvm_api'], 'host.kvm_api'),
    kvm_missing: list(found['kvm_missing'], 'host.kvm_missing', 64, (name, at) =>
      text(name, at, 64),
    ),
    landlock: version(found['landlock'], 'host.landlock'),
    swap_limit: boolean(found['swap_limit'], 'host.swap_limit'),
  }
}

/** An object whose names are data, as tenants are. @param max members @param read reads each */
function byName<T>(
  value: unknown,
  at: string,
  max: number,
  read: (value: unknown, at: string) => T,
): Readonly<Record<string, T>> {
  if (typeof value !== 'object' || value === null) throw new BadShape(at, 'must be an object')
  const entries = Object.entries(value)
  if (entries.length > max) throw new BadShape(at, `has over ${max} members`)
  return Object.fromEntries(entries.map(([name, one]) => [name, read(one, `${at}.${name}`)]))
}

const readLevels = (value: unknown, at: string): HostDescription['levels'] =>
  byName(value, at, LEVELS_MAX, (levels, place) =>
    list(levels, place, 3, (level, one) => text(level, one, 16)),
  )

function readHostPath(value: unknown, at: string): HostPathEntry {
  const found = members(value, at, ['exec', 'ids', 'tenants'])
  return {
    tenants: list(found['tenants'], `${at}.tenants`, LEVELS_MAX, (tenant, one) =>
      text(tenant, one, 63),
    ),
    ids: nullable(found['ids'], (ids) => integer(ids, `${at}.ids`, 1)),
    exec: boolean(found['exec'], `${at}.exec`),
  }
}

function readScratch(value: unknown): HostDescription['scratch'] {
  const found = members(value, 'scratch', ['blocks', 'size'])
  return { blocks: digest(found['blocks'], 'scratch'), size: integer(found['size'], 'scratch', 1) }
}

function readContainer(value: unknown): ContainerParts {
  const found = members(value, 'container', ['bundle', 'digest', 'runtime', 'version'])
  return {
    bundle: digest(found['bundle'], 'container.bundle'),
    digest: digest(found['digest'], 'container.digest'),
    runtime: digest(found['runtime'], 'container.runtime'),
    version: text(found['version'], 'container.version', 64),
  }
}

export function readDescription(answer: Members): HostDescription {
  const names =
    'node boot_id kvm kvm_reason allow_software_kvm host vmm kernel cmdline container container_reason init scratch'
  const found = members(answer, 'describe', [
    'ok',
    ...names.split(' '),
    'templates',
    'levels',
    'host_paths',
  ])
  const kernel = members(found['kernel'], 'kernel', ['digest', 'size'])
  const init = members(found['init'], 'init', ['size', 'verity'])
  return {
    node: text(found['node'], 'node', 128),
    boot_id: text(found['boot_id'], 'boot_id', 36),
    kvm: nullable(found['kvm'], (kvm) => oneOf(kvm, 'kvm', ['software', 'hardware'])),
    kvm_reason: nullable(found['kvm_reason'], (reason) => text(reason, 'kvm_reason')),
    allow_software_kvm: boolean(found['allow_software_kvm'], 'allow_software_kvm'),
    host: readRootFacts(found['host']),
    vmm: readVmm(found['vmm'], 'vmm'),
    kernel: { digest: digest(kernel['digest'], 'kernel'), size: integer(kernel['size'], 'kernel') },
    cmdline: text(found['cmdline'], 'cmdline', 2048),
    container: nullable(found['container'], readContainer),
    container_reason: nullable(found['container_reason'], (reason) =>
      text(reason, 'container_reason'),
    ),
    init: { size: integer(init['size'], 'init.size'), verity: readVerity(init['verity'], 'init') },
    scratch: readScratch(found['scratch']),
    templates: list(found['templates'], 'templates', 64, readTemplate),
    levels: readLevels(found['levels'], 'levels'),
    host_paths: byName(found['host_paths'], 'host_paths', HOST_PATHS_MAX, readHostPath),
  }
}

/** The VMM's counters: of the machine, and of each device, by the names of docs/formats.md. */
export interface VmmMetrics {
  readonly machine: Readonly<Record<string, number>>
  readonly devices: Readonly<Record<string, Readonly<Record<string, number>>>>
}

function counters(
  value: unknown,
  at: string,
  names: readonly string[],
): Readonly<Record<string, number>> {
  const found = members(value, at, names)
  return Object.fromEntries(names.map((name) => [name, integer(found[name], `${at}.${name}`)]))
}

export function readMetrics(answer: Members): VmmMetrics {
  const found = members(answer, 'answer', ['ok', 'machine', 'devices'])
  const devices = members(found['devices'], 'devices', DEVICES)
  const each = DEVICES.map(
    (name) => [name, counters(devices[name], `devices.${name}`, DEVICE_COUNTERS)] as const,
  )
  return {
    machine: counters(found['machine'], 'machine', MACHINE_COUNTERS),
    devices: Object.fromEntries(each),
  }
}

export function readUsage(value: unknown): Usage {
  const found = members(value, 'usage', USAGE)
  const count = (name: (typeof USAGE)[number]): number | null =>
    nullable(found[name], (one) => integer(one, `usage.${name}`))
  return {
    cpu_us: count('cpu_us'),
    cpu_throttled_us: count('cpu_throttled_us'),
    memory_bytes: count('memory_bytes'),
    memory_peak_bytes: count('memory_peak_bytes'),
    scratch_bytes: count('scratch_bytes'),
    scratch_used_bytes: count('scratch_used_bytes'),
    tasks: count('tasks'),
  }
}

export function readExit(value: unknown, at: string): PodExit {
  const found = members(value, at, ['how', 'value', 'guest_reported', 'cause', 'text'])
  return {
    how: oneOf(found['how'], `${at}.how`, EXIT_WAYS),
    value: integer(found['value'], `${at}.value`, -2_147_483_648, 2_147_483_647),
    guest_reported: boolean(found['guest_reported'], `${at}.guest_reported`),
    cause: text(found['cause'], `${at}.cause`, 64),
    text: nullable(found['text'], (sentence) => text(sentence, `${at}.text`)),
  }
}

const POD_MEMBERS = ['pod', 'tenant', 'spec', 'pid', 'state', 'paused', 'scratch_bytes', 'exit']

export function readPodStatus(value: unknown, at: string): PodStatus {
  const found = members(value, at, POD_MEMBERS)
  const state = oneOf(found['state'], `${at}.state`, ['running', 'exited'])
  const exit = nullable(found['exit'], (ended) => readExit(ended, `${at}.exit`))
  if ((state === 'exited') !== (exit !== null)) throw new BadShape(at, 'must exit exactly once')
  return {
    pod: text(found['pod'], `${at}.pod`, 36),
    tenant: text(found['tenant'], `${at}.tenant`, 40),
    spec: digest(found['spec'], `${at}.spec`),
    pid: integer(found['pid'], `${at}.pid`, 0),
    state,
    paused: boolean(found['paused'], `${at}.paused`),
    scratch_bytes: nullable(found['scratch_bytes'], (size) => integer(size, `${at}.scratch_bytes`)),
    exit,
  }
}

export function readVolumeStatus(value: unknown, at: string): VolumeStatus {
  const names = ['machine', 'made_ms', 'pod', 'size_bytes', 'snapshot', 'used_bytes', 'volume']
  const found = members(value, at, names)
  return {
    volume: text(found['volume'], `${at}.volume`, 63),
    snapshot: nullable(found['snapshot'], (name) => text(name, `${at}.snapshot`, 63)),
    size_bytes: integer(found['size_bytes'], `${at}.size_bytes`),
    used_bytes: integer(found['used_bytes'], `${at}.used_bytes`),
    made_ms: integer(found['made_ms'], `${at}.made_ms`),
    machine: boolean(found['machine'], `${at}.machine`),
    pod: nullable(found['pod'], (pod) => text(pod, `${at}.pod`, 36)),
  }
}
