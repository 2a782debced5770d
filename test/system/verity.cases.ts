/** No byte the signature does not cover: what changes on disk after it was verified is never read. */
import assert from 'node:assert/strict'
import { copyFileSync, readFileSync, truncateSync } from 'node:fs'
import { suite, test } from 'node:test'
import { alter } from './descriptors.cases.ts'
import type { Machine } from './harness.ts'
import { blob, type DiskFile } from './images.ts'
import { type Ended, probe, run, start } from './launch.ts'
import { isNamed } from './named.ts'

const BLOCK = 4096

/** The image in a file of its own. */
function copyOf(machine: Machine, name: string): DiskFile {
  const { image } = machine
  const path = machine.place(name)
  copyFileSync(image.path, path)
  return { ...image, path }
}

/** Where the tree holds the hash of a data block: in its last level, 128 to a node. */
function hashOf({ image }: Machine, block: number): number {
  const leaves = Math.ceil(image.verity.data_blocks / 128)
  const node = image.size / BLOCK - leaves + Math.floor(block / 128)
  return node * BLOCK + (block % 128) * 32
}

/** Where the last byte of /data/blob lies on the disk. */
function endOfBlob({ image }: Machine): number {
  const tail = blob().subarray(-BLOCK)
  const at = readFileSync(image.path).indexOf(tail)
  assert.ok(at >= 0 && at % BLOCK === 0, 'the file lies whole on the disk')
  return at + BLOCK - 1
}

function refused({ exit, stdout }: Ended, block: number | null): void {
  assert.equal(`${exit.how} ${exit.cause}`, 'failure VERITY')
  isNamed(exit, 'RUNNING')
  const which = block === null ? '\\d+' : String(block)
  assert.match(exit.text ?? '', new RegExp(`^block ${which} of the image is not the one`, 'u'))
  assert.doesNotMatch(stdout, /slurp/u, 'not one byte of it reached the app')
}

export function verityCases(machine: Machine): void {
  suite('system/verity', { concurrency: 1 }, () => {
    const words = probe('say', 'up', 'line', 'slurp', '/data/blob')

    test('ends a machine that reads a byte which was changed while it ran', async () => {
      const image = copyOf(machine, 'image-live')
      const at = endOfBlob(machine)
      const running = await start(machine, { args: words, image })
      await running.says(/up/u)
      alter(image.path, at)
      running.stream.stdin(Buffer.from('go\n'))
      refused(await running.end(), Math.floor(at / BLOCK))
    })

    test('ends a machine whose tree was changed after it was verified', async () => {
      const image = copyOf(machine, 'image-tree')
      alter(image.path, hashOf(machine, Math.floor(endOfBlob(machine) / BLOCK)))
      refused(await run(machine, { args: probe('slurp', '/data/blob'), image }), null)
    })

    test('ends a machine whose image is another, equally well made, of the same size', async () => {
      const ended = await run(machine, { args: probe('slurp', '/data/blob') }, (spec) => {
        const [, image] = spec['descriptors'] as unknown as { verity: { root: string } }[]
        if (image !== undefined) image.verity.root = machine.host.init.verity.root
      })
      refused(ended, null)
    })

    test('gives an app an error, and no zeros, for an image that was cut short while it ran', async () => {
      const image = copyOf(machine, 'image-cut')
      const running = await start(machine, { args: words, image })
      await running.says(/up/u)
      truncateSync(image.path, BLOCK)
      running.stream.stdin(Buffer.from('go\n'))
      const { stdout } = await running.end()
      assert.doesNotMatch(stdout, /slurp \/data\/blob ok/u)
    })
  })
}
