/** Writes the files of root's that spawn and the agent read, in canonical JSON. */
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
import { type Canonical, canonicalJson, parseCanonical } from '../../policy/canonical.ts'
import type { Account, Accounts } from './accounts.ts'
import type { Artifacts } from './artifacts.ts'
import type { Layout } from './layout.ts'

const VM_UID_BASE = 2_000_000
const VM_UID_COUNT = 1000

/** What an operator may set of a host that `casemate up` runs. */
export interface Settings {
  readonly allowSoftwareKvm: boolean
  /** On 127.0.0.1; null: no HTTPS. */
  readonly httpsPort: number | null
  /** Users beside root that are operators. */
  readonly operators: readonly number[]
  /** Registries on this host or without TLS, as `127.0.0.1:5000`. */
  readonly insecureRegistries: readonly string[]
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

/** Levels below vm by tenant: root writes them into spawn.json by hand, and they are kept. */
function levelsOf(layout: Layout): Canonical {
  if (!existsSync(layout.spawnConfig)) return {}
  const known = parseCanonical(readFileSync(layout.spawnConfig))
  if (typeof known !== 'object' || known === null || Array.isArray(known)) return {}
  return Object.fromEntries(Object.entries(known))['levels'] ?? {}
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

export function writeConfiguration(parts: ConfigurationParts): void {
  const { layout, accounts, artifacts, settings, node, vkey, nodeProgram } = parts
  const worker = (kind: string) => [nodeProgram, `${layout.code}/native/workers/${kind}/main.ts`]
  replace(layout.vkey, `${vkey}\n`)
  replace(
    layout.spawnConfig,
    canonicalJson({
      v: 'casemate.spawn/1',
      node,
      log_keys: [vkey],
      allow_software_kvm: settings.allowSoftwareKvm,
      levels: levelsOf(layout),
      agent_uid: accounts.agent.uid,
      agent_gid: accounts.agent.gid,
      worker_uid: accounts.worker.uid,
      worker_gid: accounts.worker.gid,
      vm_uid_base: VM_UID_BASE,
      vm_uid_count: VM_UID_COUNT,
      run_dir: layout.spawnRun,
      state_dir: layout.spawnState,
      vmm: artifacts.vmm,
      kernel: artifacts.kernel,
      init: artifacts.init,
      init_verity: { ...artifacts.initVerity },
      scratch: { ...artifacts.scratch },
      workers: { rootfs: worker('rootfs'), seccomp: worker('seccomp') },
    }),
  )
  replace(
    layout.agentConfig,
    canonicalJson({
      v: 'casemate.agent/1',
      node,
      state_dir: layout.agentState,
      run_dir: layout.agentRun,
      spawn_socket: layout.spawnSocket,
      signer_socket: layout.signerSocket,
      vkey_file: layout.vkey,
      operators: settings.operators,
      https_port: settings.httpsPort,
      registries: settings.insecureRegistries.map((host) => ({ host, insecure: true })),
      image_floor: null,
      requests_per_minute: 1200,
    }),
  )
}
