/** Firecracker, from the outside: configuration file, API socket, snapshot files. No jailer. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import path from 'node:path'
import type { DiskFile } from '../../system/images.ts'
import type { Parts } from './parts.ts'
import { MEMORY_MIB, type Peer, type Startable } from './peer.ts'
import { quiet, startVm } from './vm.ts'

/** Characters of its last words in an error. */
const SAID_LAST = 300
const ELF_HEAD = 4096
const HTTP_NO_CONTENT = 204
const RESETS = 'r'
const IDLES = 'i'

export interface Firecracker extends Peer {
  readonly version: string
  /** A dynamic program is a build for GNU libc, whose seccomp filters allow everything (its build.rs). */
  readonly dynamic: boolean
}

/** Why there is nothing to compare with, in one line, or null. */
export function noFirecracker(program: string | undefined): string | null {
  if (program === undefined || program === '') {
    return 'FIRECRACKER is not set: it is the path of a firecracker program to measure beside'
  }
  return path.isAbsolute(program) && existsSync(program)
    ? null
    : `FIRECRACKER names no file by an absolute path: ${program}`
}

interface Host {
  readonly program: string
  readonly parts: Parts
  /** Of the host's own guests. */
  readonly kernel: string
  readonly cmdline: string
}

/** What its kernel is told, and the disk with its init where that is not the answering one. */
interface Words {
  readonly cmdline: string
  readonly disk?: DiskFile
  /** A card on the tap of test/bench/vmm/echo-tap.h. */
  readonly hasTap?: boolean
}

let files = 0

/** A configuration file of one machine. */
function configuration({ parts }: Host, kernel: string, words: Words): string {
  files += 1
  const place = path.join(parts.folder, `firecracker-${files}.json`)
  const drive = (drive_id: string, path_on_host: string): object => ({
    drive_id,
    path_on_host,
    is_root_device: false,
    is_read_only: true,
  })
  const disk = words.disk ?? parts.answering
  const config = {
    'boot-source': { kernel_image_path: kernel, boot_args: words.cmdline },
    // What ours has always: a kernel sets up each device when it boots, and shuts it down before a reset.
    drives: [
      drive('init', disk.path),
      drive('image', parts.answering.path),
      drive('scratch', parts.idle.path),
    ],
    entropy: {},
    balloon: { amount_mib: 0, deflate_on_oom: false },
    'network-interfaces': words.hasTap === true ? [{ iface_id: 'net', host_dev_name: 'echo' }] : [],
    'machine-config': { vcpu_count: 1, mem_size_mib: MEMORY_MIB },
  }
  writeFileSync(place, JSON.stringify(config))
  return place
}

/** One request to the API. @throws with its answer unless that is 204 */
async function ask(socketPath: string, at: readonly [string, string], body: object): Promise<void> {
  const [method, target] = at
  const bytes = JSON.stringify(body)
  const headers = { 'Content-Type': 'application/json', 'Content-Length': bytes.length }
  await new Promise<void>((resolve, reject) => {
    const sent = request({ socketPath, method, path: target, headers }, (answer) => {
      let text = ''
      answer.on('data', (chunk: Buffer) => {
        text += chunk.toString('utf8')
      })
      answer.on('end', () => {
        if (answer.statusCode === HTTP_NO_CONTENT) resolve()
        else reject(new Error(`firecracker answered ${target}: ${text}`))
      })
    })
    sent.once('error', reject)
    sent.end(bytes)
  })
}

interface Snapshot {
  readonly state: string
  readonly memory: string
}

/** Whether a program asks for a loader: its name lies in the first page of the file. */
const isDynamic = (program: string): boolean =>
  readFileSync(program).subarray(0, ELF_HEAD).includes('/ld-linux')

/** Waits for the word that the guest's init says before it waits. @throws when Firecracker ended before */
const ready = (child: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    let said = ''
    child.stdout?.on('data', (chunk: Buffer) => {
      said = `${said}${chunk.toString('latin1')}`.slice(-SAID_LAST)
      if (said.includes('ready')) resolve()
    })
    child.once('close', () =>
      reject(new Error(`firecracker ended before its guest was ready: ${said}`)),
    )
  })

/** Boots a guest whose init waits for a byte on the serial port, and takes a snapshot of it there. */
async function takeSnapshot(host: Host): Promise<Snapshot> {
  const place = (name: string): string => path.join(host.parts.folder, name)
  const [socket, state, memory] = [place('api.sock'), place('fc.state'), place('fc.memory')]
  const config = configuration(host, host.kernel, { cmdline: `${host.cmdline} act=serial` })
  const args = ['--api-sock', socket, '--config-file', config]
  const child = spawn(host.program, args, { stdio: ['pipe', 'pipe', 'inherit'], env: {} })
  const end = once(child, 'close')
  process.once('exit', () => child.kill('SIGKILL'))
  try {
    await ready(child)
    await quiet([{ pid: child.pid ?? 0 }])
    await ask(socket, ['PATCH', '/vm'], { state: 'Paused' })
    const kind = { snapshot_type: 'Full', snapshot_path: state, mem_file_path: memory }
    await ask(socket, ['PUT', '/snapshot/create'], kind)
    return { state, memory }
  } finally {
    child.kill('SIGKILL')
    await end
  }
}

/** Boots one guest for its snapshot. */
export async function openFirecracker(host: Host): Promise<Firecracker> {
  const { program, parts, kernel, cmdline } = host
  const version = execFileSync(program, ['--version'], { encoding: 'utf8' })
  const snapshot = await takeSnapshot(host)
  const byKey = cmdline.replace('reboot=t', 'reboot=k')
  const cold = (of: string, words: Words, output = '-'): Promise<Startable> => {
    const args = ['--no-api', '--config-file', configuration(host, of, words)]
    return Promise.resolve(() => startVm(parts.runPeer, ['-', '-', '-', output, program, ...args]))
  }
  const restored = (byte: string): Promise<Startable> => {
    files += 1
    const socket = path.join(parts.folder, `api-${files}.sock`)
    const body = JSON.stringify({
      snapshot_path: snapshot.state,
      mem_backend: { backend_path: snapshot.memory, backend_type: 'File' },
      resume_vm: true,
    })
    const args = [program, '--api-sock', socket]
    return Promise.resolve(() => startVm(parts.runPeer, [byte, socket, body, '-', ...args]))
  }
  return {
    version: /v\S+/u.exec(version)?.[0] ?? 'unknown',
    dynamic: isDynamic(program),
    memory: /\/fc\.memory$/u,
    first: () => cold(parts.first.path, { cmdline: byKey }),
    boot: () => cold(kernel, { cmdline: `${byKey} act=reset` }),
    bootIdle: () => cold(kernel, { cmdline: `${byKey} act=idle` }),
    measured: async () => {
      const output = path.join(parts.folder, 'fc.output')
      const words = {
        cmdline: `${byKey} plain=/dev/vda net= serial= printk.devkmsg=on`,
        disk: parts.measuring,
        hasTap: true,
      }
      const vm = await (await cold(kernel, words, output))()
      await vm.ended
      return readFileSync(output, 'latin1')
    },
    answer: () => restored(RESETS),
    idle: () => restored(IDLES),
  }
}
