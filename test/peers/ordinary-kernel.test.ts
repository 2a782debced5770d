/**
 * The kernel for hardware KVM, which build machines without VMX or SVM cannot run under KVM: booted by
 * QEMU's interpreter (TCG) on a machine like the VMM's, with guest-init and an app. The test is the host's
 * end of the control pipe (docs/formats.md section 7).
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { suite, test } from 'node:test'
import { ARTIFACTS, readArtifacts } from '../../native/up/artifacts.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import { buildDisk, busyboxTar } from '../system/images.ts'
import { missing } from './images-programs.ts'

const root = path.resolve(import.meta.dirname, '../..')
const skip = missing('qemu-system-x86_64', 'busybox')

/** What spawn's machine.rs has for hardware, less what TCG does not need. */
const CMDLINE =
  'console=ttyS0 reboot=t panic=-1 random.trust_cpu=off quiet root=/dev/vda ro rootfstype=erofs init=/init'
const HEADER_BYTES = 8
const WINDOW = 65_536
const [UNIQUE, CONFIG, CREDIT] = [1, 2, 6]
const [HELLO, UNIQUE_DONE, STARTED, STDOUT, STDERR, EXIT] = [64, 65, 66, 67, 68, 69]

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
const config = (script: string): Buffer =>
  frame(
    CONFIG,
    canonicalBytes({
      app: {
        name: 'app',
        process: {
          args: ['/bin/sh', '-c', script],
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
        read_only_root: false,
        seccomp: null,
      },
      hostname: 'web-1',
    }),
  )

/** Speaks as the VMM does, as far as EXIT; answers the kinds heard, what was written and how it ended. */
async function converse(socket: Socket, script: string) {
  const kinds: number[] = []
  let output = ''
  for await (const [kind, payload] of frames(socket)) {
    kinds.push(kind)
    if (kind === HELLO) socket.write(unique())
    if (kind === UNIQUE_DONE)
      socket.write(Buffer.concat([config(script), credit(STDOUT - 66), credit(STDERR - 66)]))
    if (kind === STDOUT || kind === STDERR) output += payload.toString()
    if (kind === EXIT)
      return { kinds, output, how: payload.readUInt8(0), value: payload.readInt32LE(1) }
  }
  return { kinds, output, how: null, value: null }
}

suite('peers/ordinary kernel under TCG', { skip }, () => {
  test('boots to init, runs an app on two processors, and keeps its mitigations', async (t) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'casemate-tcg-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const { init, scratch } = readArtifacts(root, root)
    const image = await buildDisk(path.join(folder, 'image'), busyboxTar('/bin/busybox'))
    const control = path.join(folder, 'control')
    const server = createServer().listen(control)
    t.after(() => server.close())
    await once(server, 'listening')
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
    const script =
      'uname -r; cat /sys/devices/system/cpu/online /sys/devices/system/cpu/vulnerabilities/spectre_v2; exit 3'
    const said = await Promise.race([converse(socket, script), gone])
    const [release = '', online, spectre] = said.output.split('\n')
    assert.match(release, /^6\.1\.\d+-casemate$/u, console)
    assert.equal(online, '0-1')
    assert.match(spectre ?? '', /^Mitigation: /u)
    assert.deepEqual([said.how, said.value], [0, 3])
    assert.deepEqual(
      said.kinds.filter((kind) => kind !== STDOUT),
      [HELLO, UNIQUE_DONE, STARTED, 71, EXIT],
    )
  })
})
