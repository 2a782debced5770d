/** Launches of a self-test: a log of one record each, with a key made for the test, and what they come to. */
import { type FileHandle, open } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { deadlineIn, systemClock } from '../../audit/index.ts'
import { leafHash } from '../../audit/merkle.ts'
import {
  checkpointText,
  generateSeed,
  type Signer,
  signerFromSeed,
  signNote,
} from '../../audit/note.ts'
import { formatReceipt } from '../../audit/receipt.ts'
import { createPodLog } from '../../native/pod-log.ts'
import type { PrivateSpawn } from '../../native/self-test/private-spawn.ts'
import type { HostDescription, PodExit, Template } from '../../native/spawn-answers.ts'
import { buildSpec, type SpecPlan } from '../../native/spec.ts'
import type { Artifacts } from '../../native/up/artifacts.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import {
  parseArguments,
  parseEnvironment,
  parseHostname,
  parseMemoryMib,
  parsePodId,
  parseTenantId,
  parseUser,
  parseVcpus,
  SIGTERM,
} from '../../policy/index.ts'
import { parseWorkingDirectory } from '../../policy/nouns/process.ts'
import { DEVICE_RATES } from '../../policy/rates.ts'

const TENANT = 'self-test'
export const VCPUS = 1
export const MEMORY_MIB = 128
const LOG_BYTES = 1_052_672
const DEADLINE_MS = 25_000
const LOOK_MS = 20

const clock = systemClock()

/** Signs what is launched here, and nothing else: its key is in no host's configuration. */
export class TestLog {
  readonly #signer: Signer = signerFromSeed('casemate/self-test', generateSeed())

  get vkey(): string {
    return this.#signer.vkey
  }

  ticket(record: Uint8Array): string {
    const checkpoint = { origin: this.#signer.name, size: 1, root: leafHash(record) }
    const note = signNote(checkpointText(checkpoint), this.#signer)
    return formatReceipt({ index: 0, hashes: [], checkpoint: note })
  }
}

function planOf(host: HostDescription, bootMs: number): SpecPlan {
  const none = { ambient: [], bounding: [], effective: [], inheritable: [], permitted: [] }
  return {
    pod: parsePodId(clock.uuid()),
    tenant: parseTenantId(TENANT),
    level: 'vm',
    kvm: host.kvm,
    hostname: parseHostname(TENANT),
    vcpus: parseVcpus(VCPUS),
    memoryMib: parseMemoryMib(MEMORY_MIB),
    process: {
      args: parseArguments(['/hello']),
      env: parseEnvironment([]),
      cwd: parseWorkingDirectory('/'),
      user: parseUser(''),
      additionalGids: [],
      capabilities: none,
      rlimits: [],
      noNewPrivileges: true,
      stopSignal: SIGTERM,
    },
    readOnlyRoot: false,
    mounts: [],
    sysctls: [],
    health: null,
    limits: {
      bootMs,
      bootLogBytes: 65_536,
      cpuQuotaPercent: 150,
      pids: 32,
      rates: DEVICE_RATES,
      stopMs: 1000,
      vmmOverheadMib: 64,
    },
    scratchBytesMax: 0,
    logBytes: LOG_BYTES,
  }
}

/** A guest that was started; `exit` asks spawn until it knows the end. */
export interface Guest {
  readonly pod: string
  readonly pid: number
  readonly logPath: string
  /** Of its pod stream; closed by whoever started the guest. */
  readonly stream: number
  exit(): Promise<PodExit>
}

export interface GuestCall {
  readonly spawn: PrivateSpawn
  readonly log: TestLog
  readonly artifacts: Artifacts
  /** For the pod's log. */
  readonly directory: string
  /** null boots cold. */
  readonly template: Template | null
  readonly bootMs: number
}

async function exitOf({ client }: PrivateSpawn, pod: string): Promise<PodExit> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- asking again is the point
    const status = (await client.list()).find((one) => one.pod === pod)
    if (status === undefined) throw new Error(`casemate-spawn does not know ${pod} any more`)
    if (status.exit !== null) return status.exit
    // oxlint-disable-next-line no-await-in-loop
    await delay(LOOK_MS)
  }
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8')

function papersOf({ spawn, log, artifacts, template, bootMs }: GuestCall) {
  const { host } = spawn
  const plan = planOf(host, bootMs)
  const spec = buildSpec({
    files: null,
    plan,
    host,
    template,
    image: artifacts.hello,
    seccomp: null,
    network: null,
    volumeSizes: [],
  })
  const record = canonicalBytes({
    v: 'casemate.audit/1',
    type: 'launch.intent',
    launch_id: plan.pod,
    tenant: plan.tenant,
    clock: { boot_id: clock.bootId },
    node: { id: host.node },
    isolation: { level: plan.level, kvm: plan.kvm },
    spec: { digest: spec.digest, size: spec.bytes.length },
    deadline: deadlineIn(clock, DEADLINE_MS),
  })
  const papers = { ticket: log.ticket(record), record: text(record), spec: text(spec.bytes) }
  return { pod: plan.pod, papers }
}

/** Starts a guest by the way that every pod takes: ticket, spawn, jail, VMM. @throws SpawnError */
export async function startGuest(call: GuestCall): Promise<Guest> {
  const { pod, papers } = papersOf(call)
  const logPath = path.join(call.directory, `${pod}.log`)
  const files: FileHandle[] = [await createPodLog(logPath, LOG_BYTES)]
  try {
    files.push(await open(call.artifacts.hello.path, 'r'))
    const [log, image] = files.map((file) => file.fd)
    const fds = { image: image ?? -1, log: log ?? -1 }
    const { pid, stream } = await call.spawn.client.launch({ ...papers, ...fds })
    return { pod, pid, logPath, stream, exit: () => exitOf(call.spawn, pod) }
  } finally {
    await Promise.all(files.map((file) => file.close()))
  }
}
