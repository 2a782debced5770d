/**
 * The VMM without spawn: started by hand with the descriptors of docs/formats.md section 6, good or
 * bad, to hear what it says of them on its control socket. No jail, so what it refuses it refuses itself.
 */
import { type ChildProcess, execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { memfdSealed } from '../../native/addon.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import { digestOf } from '../native/workers/rootfs/build-image.ts'
import { type Machine, vmTemplate } from './harness.ts'
import { type Papers, type Prepared, withFiles } from './launch.ts'

let scratches = 0

/** A fresh scratch disk, as spawn makes one for a VMM that it starts itself. */
export function scratchFile(machine: Machine, prepared: Prepared): string {
  scratches += 1
  const place = machine.place(`${prepared.pod}.${scratches}.scratch`)
  execFileSync('cp', ['--sparse=always', machine.artifacts.scratch.path, place])
  return place
}

/** The reasons of a FAILURE that these tests meet (native/wire/src/control.rs). */
const REASONS: ReadonlyMap<number, string> = new Map([
  [1, 'TICKET'],
  [2, 'DESCRIPTOR'],
  [3, 'KVM'],
  [5, 'TEMPLATE_STATE'],
  [9, 'VERITY'],
  [12, 'SECCOMP'],
  [15, 'LAUNCH_DOCUMENT'],
  [16, 'MACHINE'],
])

/** Descriptors 3 and up of the VMM, in their order. */
export const ROLES = [
  'document',
  'control',
  'stream',
  'kvm',
  'kernel',
  'init',
  'state',
  'memory',
  'image',
  'scratch',
  'log',
] as const
export type Role = (typeof ROLES)[number]
export type Descriptors = Readonly<Record<Role, number | 'pipe' | null>>

/** What it said, in order, as `STARTED`, `READY`, `EXIT code 0`, `FAILURE TICKET: sentence`. */
export type Said = readonly string[]

/** A VMM that runs by hand. */
export interface ByHand {
  readonly child: ChildProcess
  /** Resolves with the digests of its filters that STARTED carries, in hexadecimal: control, I/O, vCPU. */
  started(): Promise<readonly string[]>
  /** Hangs up, as a spawn that is gone. */
  hangUp(): void
  /** Waits for its end. */
  said(): Promise<Said>
}

const WAYS = ['code', 'signal', 'oom']

/** The control messages in a byte stream; the VMM sends each in one packet, a pipe runs them together. */
function messages(bytes: Buffer): Said {
  const said: string[] = []
  let at = 0
  while (at < bytes.length) {
    const kind = bytes.readUInt8(at)
    if (kind === 1) {
      said.push('STARTED')
      at += 97
    } else if (kind === 2) {
      said.push('READY')
      at += 2
    } else if (kind === 3) {
      said.push(`EXIT ${WAYS[bytes.readUInt8(at + 1)] ?? '?'} ${bytes.readInt32LE(at + 2)}`)
      at += 6
    } else if (kind === 4) {
      const reason = bytes.readUInt16LE(at + 1)
      const end = at + 5 + bytes.readUInt16LE(at + 3)
      const text = bytes.toString('latin1', at + 5, end)
      said.push(`FAILURE ${REASONS.get(reason) ?? String(reason)}: ${text}`)
      at = end
    } else throw new Error(`the VMM sent a message of kind ${kind}`)
  }
  return said
}

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', () => resolve())
  })

/** The digests of a STARTED that is the first message, when all of it is there. */
function digests(bytes: Buffer): readonly string[] | null {
  if (bytes.length < 97 || bytes.readUInt8(0) !== 1) return null
  return [1, 33, 65].map((at) => bytes.toString('hex', at, at + 32))
}

/** Starts the VMM on these descriptors. */
export function startByHand(machine: Machine, given: Descriptors): ByHand {
  const rest = ROLES.map((role) => given[role] ?? 'ignore')
  const stdio: StdioOptions = ['ignore', 'ignore', 'pipe', ...rest]
  const child = spawn(machine.artifacts.vmm, [], { stdio, env: {}, cwd: '/' })
  const control: Buffer[] = []
  const words: Buffer[] = []
  const streams: readonly (Readable | Writable | null | undefined)[] = child.stdio
  streams[4]?.on('data', (chunk: Buffer) => void control.push(chunk))
  streams[2]?.on('data', (chunk: Buffer) => void words.push(chunk))
  streams[5]?.on('data', () => undefined)
  const end = ended(child)
  return {
    child,
    started: () =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = digests(Buffer.concat(control))
          if (found !== null) resolve(found)
        }
        streams[4]?.on('data', look)
        void end.then(() => reject(new Error('the VMM ended before it had started')), reject)
        look()
      }),
    hangUp: () => void streams[4]?.destroy(),
    said: async () => {
      await end
      const said = messages(Buffer.concat(control))
      return words.length === 0 ? said : [...said, Buffer.concat(words).toString('utf8').trim()]
    },
  }
}

/** Starts the VMM on these descriptors and waits for its end. */
export const vmm = (machine: Machine, given: Descriptors): Promise<Said> =>
  startByHand(machine, given).said()

/** The launch document as spawn writes it. */
export function documentOf(machine: Machine, papers: Papers, context: object = {}): Buffer {
  const { host } = machine
  return Buffer.from(
    canonicalBytes({
      context: {
        allow_software_kvm: host.allow_software_kvm,
        boot_id: host.boot_id,
        kvm: host.kvm,
        levels: {},
        log_keys: [machine.log.vkey, machine.forge.vkey],
        node: host.node,
        ...context,
      },
      mode: 'launch',
      ...papers,
    }),
  )
}

/** A descriptor of one of spawn's own memfds, found by its size and content. Root may do this. */
function memfdOf(machine: Machine, size: number, digest: string | null): number {
  const folder = `/proc/${machine.program.pid}/fd`
  for (const name of readdirSync(folder)) {
    const place = `${folder}/${name}`
    if (!readlinkSync(place).startsWith('/memfd:')) continue
    const fd = openSync(place, 'r')
    const fits = fstatSync(fd).size === size
    if (fits && (digest === null || digestOf(readFileSync(place)) === digest)) return fd
    closeSync(fd)
  }
  throw new Error('spawn holds no such memfd')
}

/**
 * Good descriptors for a launch, of which `change` replaces some; closed again after `use`.
 * Those that `change` opens are its own to close.
 */
export async function withDescriptors<T>(
  machine: Machine,
  prepared: Prepared,
  papers: Papers,
  use: (good: Descriptors) => Promise<T>,
): Promise<T> {
  const opened: number[] = []
  const { state, state_size, memory_size } = await vmTemplate(machine)
  const keep = (fd: number): number => {
    opened.push(fd)
    return fd
  }
  try {
    return await withFiles(prepared, async ({ image, log }) =>
      use({
        document: keep(memfdSealed('launch-document', documentOf(machine, papers))),
        control: 'pipe',
        stream: 'pipe',
        kvm: keep(openSync('/dev/kvm', 'r+')),
        kernel: null,
        init: keep(openSync(machine.artifacts.init, 'r')),
        state: keep(memfdOf(machine, state_size, state)),
        memory: keep(memfdOf(machine, memory_size, null)),
        image,
        scratch: keep(openSync(scratchFile(machine, prepared), 'r+')),
        log,
      }),
    )
  } finally {
    for (const fd of opened) closeSync(fd)
  }
}
