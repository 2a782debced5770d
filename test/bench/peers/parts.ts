/** What both programs are given: a kernel that ends at once, disks with an init of our own, and the runners. */
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { archive, directory, file } from '../../native/workers/rootfs/tar-writer.ts'
import { buildDisk, type DiskFile } from '../../system/images.ts'
import { buildRunner } from '../vmm/run.ts'

const BARE = ['-nostdlib', '-static', '-no-pie', '-Wl,--build-id=none']
const FREESTANDING = ['-O2', '-ffreestanding', '-fno-stack-protector', '-mgeneral-regs-only']
const STRICT = ['-Wall', '-Wextra', '-Werror']
/** Above everything that either VMM puts below 1 MiB and the pages it may lay behind that. */
const FIRST_ADDRESS = '-Wl,-Ttext=0x200000,-e,start'

/** As much as guest/measure.c reads. */
const MEASURED_BYTES = 32 * 2 ** 20

export interface Parts {
  readonly folder: string
  /** An ELF file whose first instructions reset the machine. */
  readonly first: { readonly path: string; readonly bytes: Buffer; readonly digest: string }
  /** Its init answers one byte with a reset (test/bench/peers/guest/init.c). */
  readonly answering: DiskFile
  /** Its init takes one byte and waits for ever. */
  readonly idle: DiskFile
  /** Its init measures its own devices (test/bench/peers/guest/measure.c); the rest is random bytes. */
  readonly measuring: DiskFile
  readonly runVmm: string
  readonly runPeer: string
}

/** Needs gcc. */
export async function buildParts(folder: string): Promise<Parts> {
  const place = (name: string): string => path.join(folder, name)
  const source = (name: string): string => path.join(import.meta.dirname, name)
  const gcc = (...args: readonly string[]): Buffer => execFileSync('gcc', args)
  gcc(...BARE, FIRST_ADDRESS, '-o', place('first'), source('guest/first.S'))
  gcc(...BARE, ...FREESTANDING, ...STRICT, '-o', place('init'), source('guest/init.c'))
  gcc(...BARE, ...FREESTANDING, ...STRICT, '-o', place('measure'), source('guest/measure.c'))
  gcc('-O1', ...STRICT, '-o', place('run-peer'), source('run-peer.c'))
  const init = file('init', readFileSync(place('init')), { mode: 0o755 })
  const measure = file('init', readFileSync(place('measure')), { mode: 0o755 })
  const bytes = readFileSync(place('first'))
  return {
    folder,
    first: {
      path: place('first'),
      bytes,
      digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
    },
    answering: await buildDisk(place('answering.img'), archive(directory('dev'), init)),
    idle: await buildDisk(place('idle.img'), archive(directory('dev'), init, file('idle', ''))),
    measuring: await buildDisk(
      place('measuring.img'),
      archive(directory('dev'), measure, file('data', randomBytes(MEASURED_BYTES))),
    ),
    runVmm: buildRunner(folder),
    runPeer: place('run-peer'),
  }
}
