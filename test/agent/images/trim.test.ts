/** Files of caches: looked at without holding anybody up, and deleted, the longest unused first. */
import assert from 'node:assert/strict'
import { readdirSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { IMAGES_FILES_MAX } from '../../../agent/images/limits.ts'
import { evictOldest, filesIn } from '../../../agent/images/trim.ts'
import { temporaryDirectory } from './support/session.ts'

const none = (): boolean => false

const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

/** The largest share of a task's work that this thread does in one piece. */
async function largestPiece(task: () => Promise<unknown>): Promise<number> {
  const began = cpuMs()
  let [last, longest, isOver] = [began, 0, false]
  const look = (): void => {
    const now = cpuMs()
    longest = Math.max(longest, now - last)
    last = now
    if (!isOver) setImmediate(look)
  }
  setImmediate(look)
  await task()
  isOver = true
  look()
  return longest / (last - began)
}

suite('agent/images/trim', () => {
  test('deletes the oldest files until enough is freed, and parts after an hour', async (context) => {
    const directory = temporaryDirectory(context)
    const now = Date.now() / 1000
    for (const [name, hours] of [
      ['oldest', 50],
      ['used', 45],
      ['older', 40],
      ['new', 0.1],
      ['abandoned.part', 2],
      ['abandoned.part.json', 60],
      ['under-way.part', 0.9],
    ] as const) {
      const place = path.join(directory, name)
      writeFileSync(place, Buffer.alloc(100, 1))
      utimesSync(place, now, now - hours * 3600)
    }
    const one = (await filesIn(directory))[0]?.frees.bytes ?? 0
    assert.ok(one >= 100, 'bytes on the disk, not in the file')
    const evict = async (bytes: number, files: number): Promise<readonly string[]> => {
      const inUse = (place: string): boolean => place.endsWith('used')
      const was = readdirSync(directory)
      const enough = await evictOldest(await filesIn(directory), { bytes, files }, inUse)
      const left = readdirSync(directory)
      if (!enough) assert.deepEqual(left, was)
      return left.toSorted()
    }
    const all = [
      'abandoned.part',
      'abandoned.part.json',
      'new',
      'older',
      'oldest',
      'under-way.part',
      'used',
    ]
    assert.deepEqual(await evict(0, 0), all)
    assert.deepEqual(await evict(6 * one, 0), all)
    assert.deepEqual(await evict(0, 6), all)
    assert.deepEqual(await evict(one + 1, 1), all.toSpliced(1, 1).toSpliced(3, 1))
    assert.deepEqual(await evict(1, 2), ['new', 'under-way.part', 'used'])
  })

  test('finds nothing where there is no directory', async (context) => {
    assert.deepEqual(await filesIn(path.join(temporaryDirectory(context), 'none')), [])
    assert.ok(await evictOldest([], { bytes: 0, files: 0 }, none))
    assert.ok(!(await evictOldest([], { bytes: 1, files: 0 }, none)))
  })

  test('looks at as many files as a tenant may have without holding up the event loop', async (context) => {
    const directory = temporaryDirectory(context)
    for (let index = 0; index < IMAGES_FILES_MAX; index += 1) {
      writeFileSync(path.join(directory, `sha256-${index}`), '')
    }
    const shares: number[] = []
    // Three times: compiling or collecting garbage may hold up one.
    for (let left = 3; left > 0; left -= 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      shares.push(await largestPiece(() => filesIn(directory)))
    }
    assert.ok(Math.min(...shares) < 0.25, `pieces of ${shares.join(', ')}`)
    assert.equal((await filesIn(directory)).length, IMAGES_FILES_MAX)
  })
})
