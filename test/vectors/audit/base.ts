/** The valid documents that the ticket vectors change one thing of. */
import { sha256 } from '../../../audit/merkle.ts'
import { type Signer, signerFromSeed } from '../../../audit/note.ts'
import { RECORD_VERSION, type RecordBody } from '../../../audit/record.ts'
import type { CanonicalObject } from '../../../policy/canonical.ts'

export const key: Signer = signerFromSeed('casemate.example/log', Buffer.alloc(32, 1))
const NODE = 'host-1'
const BOOT = '5c6f9a6e-33f3-4b0e-9a1c-0d7f3a1f6f10'
const LAUNCH = '01935c7e-8b3a-7cc1-9f00-3d2c1b0a9f8e'
export const NOW: bigint = 1_000_000_000_000n
export const digest = (text: string | Uint8Array): string =>
  `sha256:${sha256(text).toString('hex')}`

export const program: Buffer = Buffer.from('060000000000ff7f', 'hex')
const verity = { data_blocks: 300, root: sha256('root').toString('hex'), salt: '00ff' }
/** 300 data blocks, 3 blocks of hashes, 1 block above them. */
const verifiedSize = 304 * 4096

export const machine: CanonicalObject = {
  vcpus: 1,
  memory_mib: 128,
  cmdline: 'console=ttyS0 panic=-1',
}

export const descriptors: readonly CanonicalObject[] = [
  { role: 'init', access: 'read', size: verifiedSize, verity },
  { role: 'image', access: 'read', size: verifiedSize, verity },
  {
    role: 'scratch',
    access: 'read-write',
    size: 1_073_741_824,
    size_max: 2_147_483_648,
    blocks: digest('scratch'),
  },
  { role: 'log', access: 'read-write', size: 4_194_304 },
]

export const app: CanonicalObject = {
  after: null,
  health: null,
  image: 0,
  name: 'app',
  process: {
    args: ['/bin/sh', '-c', 'uname -r'],
    env: ['PATH=/bin', 'GREETING=gr\u00fc\u00df "dich"\n'],
    cwd: '/',
    user: '',
    additional_gids: [10],
    capabilities: {
      ambient: [],
      bounding: ['CAP_CHOWN'],
      effective: ['CAP_CHOWN'],
      inheritable: [],
      permitted: ['CAP_CHOWN'],
    },
    rlimits: [
      { type: 'RLIMIT_NOFILE', soft: 1024, hard: 1024 },
      { type: 'RLIMIT_CORE', soft: 0, hard: '18446744073709551615' },
    ],
    no_new_privileges: true,
  },
  mounts: [],
  read_only_root: false,
  seccomp: { digest: digest(program), program: program.toString('base64') },
  stop_signal: 15,
}

export const rates: CanonicalObject = {
  disk_read: { bytes: { burst: 0, capacity: 2 ** 28, refill: 2 ** 28 }, operations: null },
  disk_write: {
    bytes: { burst: 2 ** 50, capacity: 1, refill: 2 ** 50 },
    operations: { burst: 1, capacity: 2 ** 50, refill: 1 },
  },
  rng: null,
}

export const limits: CanonicalObject = {
  boot_ms: 120_000,
  boot_log_bytes: 65_536,
  cpu_quota_percent: 100,
  pids: 32,
  rates,
  stop_ms: 10_000,
  vmm_overhead_mib: 64,
}

export const baseSpec: CanonicalObject = {
  v: 'casemate.spec/1',
  launch_id: LAUNCH,
  tenant: 'acme',
  level: 'vm',
  kvm: 'software',
  node: NODE,
  hostname: 'web-1',
  machine,
  vmm: {
    digest: digest('vmm'),
    filters: { control: digest('control'), io: digest('io'), vcpu: digest('vcpu') },
  },
  kernel: { digest: digest('kernel'), size: 21_000_000 },
  template: {
    memory: digest('memory'),
    memory_size: 134_217_728,
    state: digest('state'),
    state_size: 16_384,
  },
  container: null,
  descriptors,
  apps: [app],
  sysctls: [],
  limits,
}

const machineParts = { kvm: null, machine: null, vmm: null, kernel: null, template: null }

/** The same pod at level container. */
export const containerSpec: CanonicalObject = {
  ...baseSpec,
  ...machineParts,
  // Without the limit that is the host's below level vm.
  apps: [
    {
      ...app,
      process: {
        ...Object(app['process']),
        rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 1024 }],
      },
    },
  ],
  level: 'container',
  container: {
    bundle: digest('bundle'),
    digest: digest('monitor'),
    memory_mib: 128,
    runtime: digest('runtime'),
  },
  descriptors: descriptors.slice(1),
}

/** A whole record, so that Rust reads what audit/record.ts writes; the spec is put in by each case. */
const intent = {
  type: 'launch.intent',
  launch_id: LAUNCH,
  tenant: 'acme',
  trust: 'untrusted',
  actor: {
    sub: 'deploy',
    kind: 'tenant',
    auth: { method: 'jwt', iss: 'casemate', jti: 'token-1', uid: null, src_ip: '192.0.2.7' },
  },
  image: {
    ref: 'registry.example/web:1.2',
    index: null,
    manifest: digest('manifest'),
    platform: 'linux/amd64',
    verify: {
      result: 'verified',
      signers: [
        {
          key: digest('key'),
          kind: 'cosign-key',
          form: 'tag',
          artifact: digest('artifact'),
          verified: true,
          reason: 'verified',
        },
      ],
    },
    config: digest('config'),
    layers: [digest('layer 1'), digest('layer 2')],
    root: sha256('root').toString('hex'),
  },
  policy: {
    bundle: digest('policies'),
    decision: 'allow',
    determining: ['tenant.vm'],
    reasons: ['trust=untrusted'],
  },
  isolation: {
    level: 'vm',
    kvm: 'software',
    requested: null,
    vmm: digest('vmm'),
    filters: { control: digest('control'), io: digest('io'), vcpu: digest('vcpu') },
    kernel: digest('kernel'),
    cmdline: digest('console=ttyS0 panic=-1'),
    init_root: sha256('root').toString('hex'),
    template: { memory: digest('memory'), state: digest('state') },
  },
  host: {
    findings: digest('findings'),
    exceptions: [{ finding: 'smt', record: 3 }],
  },
  spec: { digest: digest(''), size: 0 },
  resources: {
    vcpus: 1,
    memory_mib: 128,
    cpu_quota_percent: 100,
    scratch_bytes: 1_073_741_824,
    capabilities: ['CAP_CHOWN'],
    env_names: ['PATH', 'GREETING'],
  },
  deadline: { boottime_ns: String(NOW + 25_000_000_000n) },
} as const satisfies RecordBody

export const baseRecord: CanonicalObject = {
  v: RECORD_VERSION,
  id: '01935c7e-8b3a-7cc1-9f00-000000000001',
  time: '2026-11-24T12:00:00.000000Z',
  clock: { boot_id: BOOT, boottime_ns: String(NOW) },
  node: { id: NODE, agent: { version: '0.1.0', digest: null }, config: null },
  ...intent,
}

export const baseContext: CanonicalObject = {
  node: NODE,
  boot_id: BOOT,
  kvm: 'software',
  allow_software_kvm: true,
  levels: {},
  log_keys: [key.vkey],
}
