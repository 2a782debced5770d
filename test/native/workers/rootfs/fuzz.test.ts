/**
 * Mutated archives against parser, tree and writer: whatever the bytes, the outcome is a tree or a
 * refusal with a code. Mutations mend the checksum most of the time, to get behind it.
 */
/* oxlint-disable no-await-in-loop -- one case after the other */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { layOut } from '../../../../native/workers/rootfs/erofs-layout.ts'
import { RootfsFailure } from '../../../../native/workers/rootfs/failure.ts'
import { readTar } from '../../../../native/workers/rootfs/tar.ts'
import { Tree } from '../../../../native/workers/rootfs/tree.ts'
import { build } from './build-image.ts'
import { readErofs } from './erofs-reader.ts'
import {
  archive,
  directory,
  entry,
  file,
  hardlink,
  pax,
  sealHeader,
  symlink,
  whiteout,
} from './tar-writer.ts'

const SEED = 20_261_124
const CASES_MAX = 60_000
const MILLISECONDS_MAX = 20_000
const BLOCK = 512

/** A small generator of our own (mulberry32), so that a seed means the same cases everywhere. */
function generator(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const corpus: readonly Buffer[] = [
  archive(directory('d'), file('d/f', 'body'), symlink('l', 'd'), hardlink('h', 'd/f')),
  archive(pax({ path: 'p/long', size: '3', 'SCHILY.xattr.user.x': 'v' }), file('s', 'abc')),
  archive(
    entry({ name: 'L', type: 'L', body: 'gnu/long\0', magic: 'ustar  \0' }),
    file('s', 'abc'),
  ),
  archive(file('a', 'x'.repeat(2000)), whiteout('.wh.b'), whiteout('d/.wh..wh..opq')),
  archive(entry({ name: 'c', type: '3', device: [1, 3] }), entry({ name: 'p', type: '6' })),
]

const FIELDS = [0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 263, 329, 337, 345] as const
const TEXTS = [
  '../',
  '/',
  '\0',
  '77777777777',
  '\x80\0\0\0',
  '\xff\xff',
  ' 1',
  'xgLKS127',
  '.wh.',
  '99 ',
]

/** One change of `bytes` in place, or a rearrangement of its blocks. */
function mutate(bytes: Buffer, random: (below: number) => number): Buffer {
  const block = random(Math.floor(bytes.length / BLOCK)) * BLOCK
  const header = bytes.subarray(block, block + BLOCK)
  switch (random(6)) {
    case 0:
      header[random(BLOCK)] = random(256)
      break
    case 1:
      header.write(TEXTS[random(TEXTS.length)] ?? '', FIELDS[random(FIELDS.length)] ?? 0, 'latin1')
      break
    case 2:
      return Buffer.concat([bytes.subarray(0, block), header, bytes.subarray(block)])
    case 3:
      return Buffer.concat([bytes.subarray(0, block), bytes.subarray(block + BLOCK)])
    case 4:
      return Buffer.concat([bytes.subarray(0, block), corpus[random(corpus.length)] ?? bytes])
    default:
      return Buffer.from(bytes.subarray(0, random(bytes.length)))
  }
  if (random(8) > 0) sealHeader(header)
  return bytes
}

async function* inChunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** True when the archive made a tree, false when it was refused; anything else is a fault. */
async function parses(bytes: Buffer, chunk: number): Promise<boolean> {
  const tree = new Tree({ devices: true, entries: 1000 })
  try {
    let index = 0
    await readTar(inChunks(bytes, chunk), (found) => {
      index += 1
      tree.apply(found, 0, index)
      return null
    })
    layOut(tree.root)
    return true
  } catch (error) {
    if (error instanceof RootfsFailure) return false
    throw error
  }
}

suite('native/workers/rootfs/fuzz', () => {
  test('turns any bytes into a tree or a refusal', async (context) => {
    const random = generator(SEED)
    const end = performance.now() + MILLISECONDS_MAX
    let cases = 0
    let accepted = 0
    while (cases < CASES_MAX && performance.now() < end) {
      let bytes: Buffer = Buffer.from(corpus[cases % corpus.length] ?? assert.fail())
      for (let count = 1 + random(4); count > 0 && bytes.length >= BLOCK; count -= 1) {
        bytes = mutate(bytes, random)
      }
      try {
        if (await parses(bytes, 1 + random(2000))) {
          accepted += 1
          if (accepted % 50 === 0) readErofs((await build([bytes])).bytes)
        }
      } catch (error) {
        const where = `case ${cases} of seed ${SEED}: ${bytes.toString('base64')}`
        throw new Error(where, { cause: error })
      }
      cases += 1
    }
    context.diagnostic(`seed ${SEED}: ${cases} cases, ${accepted} accepted`)
    assert.ok(accepted > 0 && accepted < cases, 'both outcomes occur')
  })
})
