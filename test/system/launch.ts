/** Launches as the agent does them: plan, spec, record, receipt, spawn; and what became of them. */
import { open } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { type SealedFiles, sealFiles } from '../../agent/tasks/launch-files.ts'
import { isolationFacts, resourceFacts } from '../../agent/tasks/record-parts.ts'
import { deadlineIn, systemClock } from '../../audit/index.ts'
import { createPodLog, type PodLogRecord } from '../../native/pod-log.ts'
import { followPodLog } from '../../native/pod-log-follow.ts'
import { type PodEvent, PodStream } from '../../native/pod-stream.ts'
import { defaultSeccompProfile } from '../../native/seccomp/default-profile.ts'
import type { PodExit, Template } from '../../native/spawn-answers.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import { buildSpec } from '../../native/spec.ts'
import { type Canonical, canonicalBytes, parseCanonical } from '../../policy/canonical.ts'
import {
  type Capability,
  type Plan,
  parseArguments,
  parseDigest,
  parseEnvironment,
  parseHostname,
  parseMemoryMib,
  parsePodId,
  parseSignal,
  parseTenantId,
  parseUser,
  parseVcpus,
  VOLUME_BYTES_MIN,
} from '../../policy/index.ts'
import { NO_NAMES } from '../../policy/nouns/names.ts'
import type { PodNetwork } from '../../policy/nouns/network.ts'
import { parseWorkingDirectory } from '../../policy/nouns/process.ts'
import { DEVICE_RATES } from '../../policy/rates.ts'
import { digestOf } from '../native/workers/rootfs/build-image.ts'
import { type Machine, type SpawnHost, TENANT } from './harness.ts'
import type { DiskFile } from './images.ts'
import { foundFile, ordinaryCapabilities } from './words.ts'

export { facts, probe, sh } from './words.ts'

import { readLog } from './read-log.ts'

const clock = systemClock()
const DEADLINE_MS = 25_000
const LOOK_MS = 10
const NOTHING = `sha256:${'0'.repeat(64)}`

/** A document that a test may bend. */
export type Loose = { [name: string]: Canonical }

/** What a test asks for; what it leaves out is what an ordinary launch gets. */
export interface Wish {
  readonly args: readonly string[]
  readonly env?: readonly string[]
  readonly cwd?: string
  readonly user?: string
  readonly capabilities?: readonly Capability[]
  readonly hostname?: string
  readonly readOnlyRoot?: boolean
  readonly tenant?: string
  /** The machine's template; null boots cold. */
  readonly template?: Template | null
  readonly shape?: { readonly vcpus: number; readonly memoryMib: number }
  readonly image?: DiskFile
  readonly logBytes?: number
  readonly scratchBytesMax?: number
  readonly bootMs?: number
  readonly stopSignal?: string
  readonly mounts?: Plan['mounts']
  /** Content of those of kind `file`, which says which of these it has. */
  readonly files?: readonly Uint8Array[]
  /** Of the volumes among them, bytes; the least there can be if left out. */
  readonly volumeSizes?: readonly number[]
  readonly sysctls?: Plan['sysctls']
  readonly network?: PodNetwork
  readonly health?: Plan['health']
  /** Another spawn than the machine's own. */
  readonly on?: SpawnHost
}

/** A launch up to its record. */
export interface Prepared {
  readonly pod: string
  readonly plan: Plan
  readonly spec: Buffer
  readonly specDigest: string
  readonly on: SpawnHost
  readonly image: DiskFile
  readonly template: Template | null
  readonly logPath: string
  readonly files: SealedFiles | null
}

/** What goes to spawn beside descriptors. */
export interface Papers {
  readonly ticket: string
  readonly record: string
  readonly spec: string
}

const decision = {
  policyIds: ['test'],
  reasons: [],
  policySetDigest: parseDigest(NOTHING),
  schemaDigest: parseDigest(NOTHING),
  cedarVersion: '0',
  imageRuleDigest: parseDigest(NOTHING),
  imageFloorDigest: null,
  hostFindingsDigest: parseDigest(NOTHING),
  hostExceptions: [],
  permitted: ['vm'],
  requested: null,
} as const

const defaults = {
  env: [],
  cwd: '/',
  user: '',
  hostname: 'web-1',
  readOnlyRoot: false,
  tenant: TENANT,
  shape: { vcpus: 1, memoryMib: 128 },
  logBytes: 1_052_672,
  scratchBytesMax: 2 ** 30,
  bootMs: 600_000,
  stopSignal: 'TERM',
  mounts: [],
  sysctls: [],
} as const

type FullWish = Wish & typeof defaults & Required<Pick<Wish, 'capabilities'>>

function processOf(wish: FullWish): Plan['process'] {
  const sets = wish.capabilities.toSorted()
  const held = wish.user === '' ? sets : []
  return {
    args: parseArguments(wish.args),
    env: parseEnvironment(['PATH=/bin', ...wish.env]),
    cwd: parseWorkingDirectory(wish.cwd),
    user: parseUser(wish.user),
    additionalGids: [],
    capabilities: {
      ambient: [],
      bounding: sets,
      effective: held,
      inheritable: [],
      permitted: held,
    },
    rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 4096 }],
    noNewPrivileges: true,
    stopSignal: parseSignal(wish.stopSignal),
  }
}

function planOf(machine: Machine, given: Wish): Plan {
  const { level } = machine
  const wish = { ...defaults, capabilities: ordinaryCapabilities(level), ...given } as FullWish
  const { vcpus, memoryMib } = wish.shape
  const image = { registry: 'r', repository: 'i', digest: parseDigest(NOTHING) }
  return {
    pod: parsePodId(clock.uuid()),
    tenant: parseTenantId(wish.tenant),
    trust: 'untrusted',
    level,
    kvm: level === 'vm' ? (wish.on ?? machine).host.kvm : null,
    vcpus: parseVcpus(vcpus),
    memoryMib: parseMemoryMib(memoryMib),
    charge: { vcpus, memoryMib, pods: 1 },
    hostname: parseHostname(wish.hostname),
    image: { ...image, reference: 'r/i', signers: [] },
    process: processOf(wish),
    seccomp: 'default',
    readOnlyRoot: wish.readOnlyRoot,
    mounts: wish.mounts,
    storedFiles: [],
    sysctls: wish.sysctls,
    networked: wish.network !== undefined,
    egress: wish.network?.egress ?? null,
    names: wish.network?.names ?? NO_NAMES,
    ports: wish.network?.ports ?? [],
    health: wish.health ?? null,
    limits: {
      bootMs: wish.bootMs,
      bootLogBytes: 65_536,
      cpuQuotaPercent: vcpus * 100 + 50,
      pids: 64,
      rates: DEVICE_RATES,
      stopMs: 10_000,
      vmmOverheadMib: 64,
    },
    scratchBytesMax: wish.scratchBytesMax,
    logBytes: wish.logBytes,
    decision,
  }
}

/** Plan, spec and files. `bend` changes the spec before anything of it is recorded. */
export async function prepare(
  machine: Machine,
  wish: Wish,
  bend: (spec: Loose) => void = () => undefined,
): Promise<Prepared> {
  const plan = planOf(machine, wish)
  const on = wish.on ?? machine
  const image = wish.image ?? machine.image
  const template = wish.template === undefined ? await machine.template : wish.template
  const seccomp = await machine.seccomp(defaultSeccompProfile(plan.process.capabilities.bounding))
  const files = await sealFiles(plan, (wish.files ?? []).map(foundFile))
  const built = buildSpec({
    plan,
    host: on.host,
    template,
    image,
    seccomp,
    network: wish.network ?? null,
    files: files && { size: files.size, digest: files.digest },
    volumeSizes: wish.volumeSizes ?? plan.mounts.map(() => VOLUME_BYTES_MIN),
  })
  const loose = structuredClone(parseCanonical(built.bytes)) as Loose
  bend(loose)
  const spec = Buffer.from(canonicalBytes(loose))
  const logPath = machine.place(`${plan.pod}.log`)
  await (await createPodLog(logPath, plan.logBytes)).close()
  const specDigest = digestOf(spec)
  return { pod: plan.pod, plan, spec, specDigest, on, image, template, logPath, files }
}

/** The launch.intent of a launch, as the log takes it. */
export function intent(prepared: Prepared): Parameters<Machine['log']['append']>[0] {
  const { plan, on, template, image, spec, specDigest } = prepared
  return {
    type: 'launch.intent',
    launch_id: plan.pod,
    tenant: plan.tenant,
    trust: plan.trust,
    actor: {
      sub: 'uid:0',
      kind: 'operator',
      auth: { method: 'unix-peer', iss: null, jti: null, uid: 0, src_ip: null },
    },
    image: {
      ref: plan.image.reference,
      index: null,
      manifest: plan.image.digest,
      platform: 'linux/amd64',
      verify: { result: 'verified', signers: [] },
      config: NOTHING,
      layers: [image.layer],
      root: image.verity.root,
    },
    policy: { bundle: NOTHING, decision: 'allow', determining: ['test'], reasons: [] },
    isolation: isolationFacts(plan, on.host, template),
    host: { findings: NOTHING, exceptions: [] },
    spec: { digest: specDigest, size: spec.length },
    resources: resourceFacts(plan, 0),
    deadline: deadlineIn(clock, DEADLINE_MS),
  }
}

/** Puts the launch on record in the real log; the receipt is the ticket. */
export async function papers(machine: Machine, prepared: Prepared): Promise<Papers> {
  const { index, bytes } = await machine.log.append(intent(prepared))
  const ticket = await machine.log.receipt(index)
  return { ticket, record: bytes.toString('utf8'), spec: prepared.spec.toString('utf8') }
}

/** A pod that spawn has started. */
export class Running {
  readonly prepared: Prepared
  readonly pid: number
  readonly stream: PodStream
  readonly events: PodEvent[] = []
  readonly #ended = new AbortController()
  #exit: Promise<PodExit> | undefined

  constructor(prepared: Prepared, pid: number, stream: PodStream) {
    this.prepared = prepared
    this.pid = pid
    this.stream = stream
    stream.on('event', (event) => void this.events.push(event))
  }

  get pod(): string {
    return this.prepared.pod
  }

  /** Everything written so far and from now on, until `matches` is content with the text of one stream. */
  async says(matches: RegExp, from: 'stdout' | 'stderr' = 'stdout'): Promise<string> {
    let text = ''
    const gone = new AbortController()
    const over = (): void => this.#ended.abort()
    // A spawn that is gone says nothing of its pods any more.
    void this.exit().then(over, over)
    const follow = { since: 0, follow: true, ended: this.#ended.signal, gone: gone.signal }
    for await (const record of followPodLog(this.prepared.logPath, follow)) {
      if (record.kind === 'record' && record.stream === from) text += record.payload.toString()
      if (matches.test(text)) return text
    }
    const exit = JSON.stringify(await this.exit())
    throw new Error(`the pod never said ${String(matches)} but ${JSON.stringify(text)}; ${exit}`)
  }

  /** How it ended, in spawn's word. Spawn is asked by one alone, however many wait: after the answer it may be gone. */
  exit(): Promise<PodExit> {
    this.#exit ??= this.#askForExit()
    return this.#exit
  }

  async #askForExit(): Promise<PodExit> {
    if (!this.stream.closed) await new Promise((resolve) => this.stream.once('close', resolve))
    for (;;) {
      const pods = await this.prepared.on.spawn.list()
      const status = pods.find(({ pod }) => pod === this.pod)
      if (status === undefined) throw new Error(`spawn does not know ${this.pod}`)
      if (status.exit !== null) return status.exit
      await pause(LOOK_MS)
    }
  }

  /** Waits for the end and collects everything. */
  async end(): Promise<Ended> {
    const exit = await this.exit()
    const log = await readLog(this.prepared.logPath)
    const text = (stream: PodLogRecord['stream']): string =>
      Buffer.concat(
        log.flatMap((record) => (record.stream === stream ? [record.payload] : [])),
      ).toString('utf8')
    const [stdout, stderr, console, notes] = [
      text('stdout'),
      text('stderr'),
      text('console'),
      text('vmm'),
    ]
    return { pod: this.pod, exit, log, stdout, stderr, console, notes, events: this.events }
  }
}

export interface Ended {
  readonly pod: string
  readonly exit: PodExit
  readonly stdout: string
  readonly stderr: string
  /** What the guest's kernel said. */
  readonly console: string
  /** What the VMM said. */
  readonly notes: string
  readonly log: readonly PodLogRecord[]
  readonly events: readonly PodEvent[]
}

/** The two descriptors of a launch, open as the agent opens them, for the time of `use`. */
export async function withFiles<T>(
  prepared: Prepared,
  use: (fds: { image: number; log: number }) => Promise<T>,
): Promise<T> {
  const files = await Promise.all([open(prepared.image.path, 'r'), open(prepared.logPath, 'r+')])
  try {
    const [image, log] = files.map((file) => file.fd)
    return await use({ image: image ?? -1, log: log ?? -1 })
  } finally {
    await Promise.all(files.map((file) => file.close()))
  }
}

/** Hands papers and files to spawn. @throws SpawnError */
export const submit = (prepared: Prepared, given: Papers): Promise<Running> =>
  withFiles(prepared, async (fds) => {
    const more = prepared.files === null ? {} : { files: prepared.files.fd }
    const { pid, stream } = await prepared.on.spawn.launch({ ...given, ...fds, ...more })
    return new Running(prepared, pid, new PodStream(stream))
  })

/** The code of spawn's refusal; a launch that is not refused fails the test. */
export async function refusal(prepared: Prepared, given: Papers): Promise<string> {
  try {
    await submit(prepared, given)
  } catch (error) {
    if (error instanceof SpawnError) return error.code
    throw error
  }
  throw new Error('spawn started what it should have refused')
}

/** A launch by the book. @throws SpawnError */
export async function start(
  machine: Machine,
  wish: Wish,
  bend?: (spec: Loose) => void,
): Promise<Running> {
  const prepared = await prepare(machine, wish, bend)
  return await submit(prepared, await papers(machine, prepared))
}

/** Launches, waits for the end. */
export const run = async (
  machine: Machine,
  wish: Wish,
  bend?: (spec: Loose) => void,
): Promise<Ended> => (await start(machine, wish, bend)).end()
