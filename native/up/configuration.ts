/**
 * Writes the files of root's that spawn and the agent read, in canonical JSON.
 *
 * What this host is made of (ids, paths, keys, digests) is written at each start. Everything else is
 * the operator's: written once, and from then on kept as it stands in the file, members that nobody
 * knows included, so that who mistyped one is told so by the process that reads the file.
 */
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import {
  type CanonicalObject,
  canonicalJson,
  isCanonicalObject,
  parseJson,
} from '../../policy/canonical.ts'
import type { Account, Accounts } from './accounts.ts'
import type { Artifacts } from './artifacts.ts'
import type { Layout } from './layout.ts'

const VM_UID_BASE = 2_000_000
const VM_UID_COUNT = 1000
/** Above what systemd gives to containers of its own (up to 0x6fffffff), 65,536 ids for each. */
const CONTAINER_UID_BASE = 0x7000_0000
const CONTAINER_COUNT = 256
/** Where Debian's package has it. */
const RUNC = '/usr/sbin/runc'
const HTTPS_PORT = 8443
const REQUESTS_PER_MINUTE = 1200
/** The way out of pods: link-local addresses, and a network beside those of tenants (policy/nouns/network.ts). */
const UPLINK = { ipv4: '169.254.88.0/30', ipv6: 'fdca:5e3a:7e00:fff0::/64', name: 'casemate0' }
/** Days: longer than what is looked into after a month's bill, and than a release that may be gone back to. */
const KEEP = { ended_pods_days: 30, unused_images_days: 30 }
const JSON_LIMITS = { bytesMax: 1 << 20, depthMax: 32 } as const

/** What the command line says. What it leaves out stays as the file has it. */
export interface Settings {
  /** Never kept: software KVM is allowed aloud, at each start. */
  readonly allowSoftwareKvm: boolean
  /** On 127.0.0.1; null: no HTTPS. */
  readonly httpsPort?: number | null
  /** Users beside root that are operators. */
  readonly operators?: readonly number[]
  /** Registries on this host or without TLS, as `127.0.0.1:5000`. */
  readonly insecureRegistries?: readonly string[]
}

function directory(path: string, mode: number, owner: Account = { uid: 0, gid: 0 }): void {
  mkdirSync(path, { recursive: true })
  chownSync(path, owner.uid, owner.gid)
  chmodSync(path, mode)
}

/** Makes every folder with its owner; safe to repeat. */
export function makeFolders(layout: Layout, accounts: Accounts): void {
  for (const path of [layout.state, layout.run, layout.conf, layout.code]) directory(path, 0o755)
  directory(layout.logs, 0o700)
  directory(layout.signerState, 0o700, accounts.signer)
  directory(layout.agentState, 0o700, accounts.agent)
  // The agent reaches the signer's socket through its group.
  directory(layout.signerRun, 0o750, { uid: accounts.signer.uid, gid: accounts.agent.gid })
  directory(layout.agentRun, 0o755, accounts.agent)
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o644, flush: true })
  renameSync(`${path}.new`, path)
}

/** This host's id: made once from its name, and kept when the name changes. */
export function nodeId(layout: Layout): string {
  if (existsSync(layout.nodeFile)) return readFileSync(layout.nodeFile, 'utf8').trim()
  const name = hostname()
    .replaceAll(/[^A-Za-z0-9.-]/gu, '')
    .slice(0, 40)
  const id = `${name === '' ? 'host' : name}-${randomBytes(4).toString('hex')}`
  replace(layout.nodeFile, `${id}\n`)
  return id
}

/** What stands in a file; nothing when there is none. @throws for one that cannot be understood */
function known(file: string): CanonicalObject {
  if (!existsSync(file)) return {}
  try {
    const document = parseJson(readFileSync(file), JSON_LIMITS)
    if (isCanonicalObject(document)) return document
    throw new TypeError('it is no object')
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    const advice = 'Correct it, or move it away to begin with the defaults.'
    throw new Error(`${file} cannot be read as JSON: ${why}. ${advice}`, { cause })
  }
}

export interface ConfigurationParts {
  readonly layout: Layout
  readonly accounts: Accounts
  readonly artifacts: Artifacts
  readonly settings: Settings
  readonly node: string
  /** The signer's public key. */
  readonly vkey: string
  /** Node's path where workers see it. */
  readonly nodeProgram: string
}

/** null where there is no OCI runtime: then the host has no level container. What else the operator wrote is kept. */
function containers(before: CanonicalObject, monitor: string): CanonicalObject | null {
  const found = before['container'] ?? {}
  const kept = isCanonicalObject(found) ? found : {}
  const { runtime = RUNC } = kept
  if (typeof runtime === 'string' && !existsSync(runtime)) return null
  return { count: CONTAINER_COUNT, uid_base: CONTAINER_UID_BASE, ...kept, monitor, runtime }
}

/** spawn.json: `levels`, `host_paths`, `uplink`, the ids of VMs and of containers and the OCI runtime are the operator's. */
function spawnDocument(parts: ConfigurationParts): CanonicalObject {
  const { layout, accounts, artifacts, settings, node, vkey, nodeProgram } = parts
  const before = known(layout.spawnConfig)
  const worker = (kind: string) => [nodeProgram, `${layout.code}/native/workers/${kind}/main.ts`]
  return {
    levels: {},
    host_paths: {},
    vm_uid_base: VM_UID_BASE,
    vm_uid_count: VM_UID_COUNT,
    uplink: UPLINK,
    ...before,
    v: 'casemate.spawn/1',
    container: containers(before, artifacts.container),
    node,
    log_keys: [vkey],
    allow_software_kvm: settings.allowSoftwareKvm,
    agent_uid: accounts.agent.uid,
    agent_gid: accounts.agent.gid,
    worker_uid: accounts.worker.uid,
    worker_gid: accounts.worker.gid,
    run_dir: layout.spawnRun,
    state_dir: layout.spawnState,
    template_dir: artifacts.templates,
    vmm: artifacts.vmm,
    kernel: artifacts.kernel,
    init: artifacts.init,
    init_verity: { ...artifacts.initVerity },
    scratch: { ...artifacts.scratch },
    volume: { ...artifacts.volume },
    workers: { rootfs: worker('rootfs'), seccomp: worker('seccomp') },
  }
}

/** Members of agent.json that the command line names. */
function fromCommandLine(settings: Settings): CanonicalObject {
  const { httpsPort, operators, insecureRegistries } = settings
  const registries = insecureRegistries?.map((host) => ({ host, insecure: true }))
  return {
    ...(httpsPort === undefined ? {} : { https_port: httpsPort }),
    ...(operators === undefined ? {} : { operators }),
    ...(registries === undefined ? {} : { registries }),
  }
}

/** agent.json: operators, HTTPS, registries, floor, rate, resolver and what is kept are the operator's. */
const agentDocument = ({ layout, settings, node }: ConfigurationParts): CanonicalObject => ({
  operators: [],
  https_port: HTTPS_PORT,
  registries: [],
  image_floor: null,
  requests_per_minute: REQUESTS_PER_MINUTE,
  resolver: { nameservers: [], options: [], search: [] },
  keep: KEEP,
  ...known(layout.agentConfig),
  ...fromCommandLine(settings),
  v: 'casemate.agent/1',
  node,
  state_dir: layout.agentState,
  run_dir: layout.agentRun,
  spawn_socket: layout.spawnSocket,
  signer_socket: layout.signerSocket,
  vkey_file: layout.vkey,
})

/** @throws when a file that is there cannot be understood; then none is changed */
export function writeConfiguration(parts: ConfigurationParts): void {
  const { layout, vkey } = parts
  const spawn = canonicalJson(spawnDocument(parts))
  const agent = canonicalJson(agentDocument(parts))
  replace(layout.vkey, `${vkey}\n`)
  replace(layout.spawnConfig, spawn)
  replace(layout.agentConfig, agent)
}
