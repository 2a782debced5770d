/**
 * A machine like the VMM's in QEMU's interpreter (TCG), with the kernel for hardware KVM, guest-init and an
 * app; and the host's end of its control pipe (docs/formats.md section 7).
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { ARTIFACTS, readArtifacts } from '../../native/up/artifacts.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import { buildDisk, busyboxTar, compile, probeEntry } from '../system/images.ts'

const root = path.resolve(import.meta.dirname, '../..')

/** What spawn's machine.rs has for hardware, less what TCG does not need. */
const CMDLINE =
  'console=ttyS0 reboot=t panic=-1 random.trust_cpu=off quiet root=/dev/vda ro rootfstype=erofs init=/init'
const HEADER_BYTES = 8
const WINDOW = 65_536
const [UNIQUE, CONFIG, CREDIT] = [1, 2, 6]
const [HELLO, UNIQUE_DONE, STDOUT, STDERR, EXIT] = [64, 65, 67, 68, 69]

/** No firmware, no PCI, no ACPI; virtio-mmio, one serial port, two processors. */
const machine = (control: string, disks: readonly string[]): readonly string[] =>
  [
    ['-M', 'microvm,acpi=off,x-option-roms=off,pit=on,pic=on,rtc=off,isa-serial=on'],
    ['-accel', 'tcg', '-cpu', 'max', '-smp', '2', '-m', '256'],
    ['-nodefaults', '-no-reboot', '-nographic', '-serial', 'stdio'],
    ['-kernel', path.join(root, ARTIFACTS, 'vmlinux'), '-append', CMDLINE],
    ['-global', 'virtio-mmio.force-legacy=false', '-device', 'virtio-serial-device,max_ports=2'],
    ['-chardev', `socket,id=control,path=${control}`],
    ['-device', 'virtserialport,chardev=control,name=casemate.control,nr=1'],
    ...disks.map((file, at) => [
      '-drive',
      `id=disk${at},file=${file},format=raw,if=none,snapshot=on`,
      '-device',
      `virtio-blk-device,drive=disk${at}`,
    ]),
    ['-device', 'virtio-rng-device'],
  ].flat()

function frame(kind: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(kind)
  header.writeUInt32LE(payload.length, 4)
  return Buffer.concat([header, payload])
}

function unique(): Buffer {
  const clock = Buffer.alloc(8)
  clock.writeBigUInt64LE(BigInt(Date.now()) * 1_000_000n)
  return frame(UNIQUE, Buffer.concat([randomBytes(64), clock, randomBytes(16)]))
}

function credit(stream: number): Buffer {
  const payload = Buffer.alloc(5)
  payload.writeUInt8(stream)
  payload.writeUInt32LE(WINDOW, 1)
  return frame(CREDIT, payload)
}

async function* frames(socket: Socket): AsyncGenerator<readonly [kind: number, payload: Buffer]> {
  let bytes = Buffer.alloc(0)
  for await (const chunk of socket) {
    assert.ok(Buffer.isBuffer(chunk))
    bytes = Buffer.concat([bytes, chunk])
    while (bytes.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + bytes.readUInt32LE(4)
      if (bytes.length < end) break
      yield [bytes.readUInt8(0), bytes.subarray(HEADER_BYTES, end)]
      bytes = bytes.subarray(end)
    }
  }
}

const CAPABILITIES = ['CAP_CHOWN', 'CAP_SETGID', 'CAP_SETUID']
const config = (args: readonly string[]): Buffer =>
  frame(
    CONFIG,
    canonicalBytes({
      apps: [
        {
          name: 'app',
          process: {
            args: [...args],
            env: ['PATH=/bin'],
            cwd: '/',
            user: 'web',
            additional_gids: [],
            capabilities: {
              ambient: [],
              bounding: CAPABILITIES,
              effective: CAPABILITIES,
              inheritable: [],
              permitted: CAPABILITIES,
            },
            rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 1024 }],
            no_new_privileges: true,
          },
          mounts: [],
          read_only_root: false,
          seccomp: null,
          health: null,
          stop_signal: 15,
          after: null,
          image: 0,
        },
      ],
      stop_ms: 10_000,
      sysctls: [],
      hostname: 'web-1',
    }),
  )

/** What the guest said as far as EXIT. */
export interface Said {
  /** Kinds of its frames. */
  readonly kinds: readonly number[]
  readonly output: string
  /** 0 code, 1 signal, 2 out of memory; null: it never said EXIT. */
  readonly how: number | null
  readonly value: number | null
  /** What its kernel said. */
  readonly console: string
}

/** Speaks as the VMM does. */
async function converse(socket: Socket, args: readonly string[]): Promise<Omit<Said, 'console'>> {
  const kinds: number[] = []
  let output = ''
  for await (const [kind, payload] of frames(socket)) {
    kinds.push(kind)
    if (kind === HELLO) socket.write(unique())
    if (kind === UNIQUE_DONE)
      socket.write(Buffer.concat([config(args), credit(STDOUT - 66), credit(STDERR - 66)]))
    if (kind === STDOUT || kind === STDERR) output += payload.toString()
    if (kind === EXIT)
      return { kinds, output, how: payload.readUInt8(0), value: payload.readInt32LE(1) }
  }
  return { kinds, output, how: null, value: null }
}

/** Boots a machine, runs `args` in it, with busybox and the system tests' probe at hand, and ends it. */
export async function runUnderTcg(t: TestContext, args: readonly string[]): Promise<Said> {
  const folder = mkdtempSync(path.join(tmpdir(), 'casemate-tcg-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const probe = path.join(folder, 'probe')
  compile('guest/probe', probe)
  const tar = busyboxTar('/bin/busybox', probeEntry(probe))
  const image = await buildDisk(path.join(folder, 'image'), tar)
  const control = path.join(folder, 'control')
  const server = createServer().listen(control)
  t.after(() => server.close())
  await once(server, 'listening')
  const { init, scratch } = readArtifacts(root, root)
  const qemu = spawn('qemu-system-x86_64', machine(control, [init, image.path, scratch.path]), {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => qemu.kill('SIGKILL'))
  let console = ''
  qemu.stdout.on('data', (chunk: Buffer) => {
    console += chunk.toString('latin1')
  })
  const gone = once(qemu, 'exit').then(() => assert.fail(`the machine ended: ${console}`))
  const connected = once(server, 'connection') as Promise<[Socket]>
  const [socket] = await Promise.race([connected, gone])
  const said = await Promise.race([converse(socket, args), gone])
  return { ...said, console }
}
