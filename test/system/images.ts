/** Disks made by the real rootfs worker in a process of its own, from tar archives. */
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { memfdSealed } from '../../native/addon.ts'
import type { VerifiedDisk } from '../../native/spec.ts'
import {
  REQUEST_VERSION,
  type RootfsAnswer,
  type RootfsRequest,
} from '../../native/workers/rootfs/request.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import { digestOf, LIMITS } from '../native/workers/rootfs/build-image.ts'
import { archive, directory, file, symlink } from '../native/workers/rootfs/tar-writer.ts'

const root = path.resolve(import.meta.dirname, '../..')

/** A disk on this host: EROFS, then its Merkle tree. */
export interface DiskFile extends VerifiedDisk {
  readonly path: string
  /** What its first layer was: digest of the tar archive. */
  readonly layer: string
}

/** Runs a worker as spawn does: request on 3, answer on 4, then `fds`. Resolves with its answer. */
export async function runWorker(
  kind: 'rootfs' | 'seccomp',
  request: Uint8Array,
  fds: readonly number[],
): Promise<Buffer> {
  const requestFd = memfdSealed(`casemate-${kind}`, Buffer.from(request))
  try {
    const child = spawn(process.execPath, [path.join(root, `native/workers/${kind}/main.ts`)], {
      stdio: ['ignore', 'ignore', 'inherit', requestFd, 'pipe', ...fds],
      env: {},
    })
    const chunks: Buffer[] = []
    child.stdio[4]?.on('data', (chunk: Buffer) => void chunks.push(chunk))
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    if (code !== 0) throw new Error(`the ${kind} worker ended with ${String(code)}`)
    return Buffer.concat(chunks)
  } finally {
    closeSync(requestFd)
  }
}

/** Builds the disk of these layers at `place`, the lowest first. */
export async function buildDisk(place: string, ...tars: readonly Buffer[]): Promise<DiskFile> {
  writeFileSync(place, '')
  const output = openSync(place, 'r+')
  const layers = tars.map((tar, number) => {
    writeFileSync(`${place}.${number}.tar`, tar)
    return openSync(`${place}.${number}.tar`, 'r')
  })
  try {
    const digests = tars.map(digestOf)
    const layerOf = (tar: Buffer, digest: string) =>
      ({ packing: 'none', size: tar.length, digest, diff_id: digest }) as const
    const request = {
      v: REQUEST_VERSION,
      layers: tars.map((tar, number) => layerOf(tar, digests[number] ?? '')),
      limits: { ...LIMITS },
    } satisfies RootfsRequest
    const bytes = await runWorker('rootfs', canonicalBytes(request), [output, ...layers])
    const answer = JSON.parse(bytes.toString('utf8')) as RootfsAnswer
    if (!answer.ok) throw new Error(`the rootfs worker refused: ${answer.code} ${answer.message}`)
    const { data_blocks, root: hash, salt, size } = answer
    return { path: place, layer: digests[0] ?? '', size, verity: { data_blocks, root: hash, salt } }
  } finally {
    for (const fd of [output, ...layers]) closeSync(fd)
  }
}

/** Compiles a program of this folder that needs nothing of where it runs. @throws with the compiler's words */
export function compile(name: string, output: string): void {
  const source = path.join(import.meta.dirname, `${name}.c`)
  const flags = ['-static', '-O2', '-Wall', '-Wextra', '-Werror', '-o', output, source]
  execFileSync('gcc', flags, { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** Bytes of /data/blob: much more than the kernel reads ahead of what it was asked for. */
export const BLOB_BYTES: number = 1 << 18
/** Its bytes: no two blocks are alike. */
export const blob = (): Buffer => createHash('shake256', { outputLength: BLOB_BYTES }).digest()

/** Applets that may be called by name. */
const APPLETS = ['cat', 'echo', 'sh', 'sleep', 'uname', 'yes']

/** Busybox, a user, a link to its /etc, and a file that nothing reads by itself; with `more` entries. */
export const busyboxTar = (busybox: string, ...more: readonly Buffer[]): Buffer =>
  archive(
    ...['bin', 'etc', 'data', 'home', 'home/web'].map((name) => directory(name)),
    file('bin/busybox', readFileSync(busybox), { mode: 0o755 }),
    ...APPLETS.map((name) => symlink(`bin/${name}`, 'busybox')),
    file('etc/passwd', 'root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n'),
    file('etc/group', 'root:x:0:\nweb:x:1001:\nlog:x:1002:web\n'),
    file('data/blob', blob()),
    symlink('away', '/etc'),
    file('data/text', 'no program\n', { mode: 0o755 }),
    ...more,
  )

/** As an entry of such an image: guest/probe.c, compiled at `place`. */
export const probeEntry = (place: string): Buffer =>
  file('bin/probe', readFileSync(place), { mode: 0o755 })
