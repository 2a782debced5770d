/** Caches that stay within their size. */
import assert from 'node:assert/strict'
import { readdirSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { trimDirectory } from '../../../agent/images/trim.ts'
import { temporaryDirectory } from './support/session.ts'

suite('agent/images/trim', () => {
  test('deletes the oldest files until the rest fits, and parts after a day', async (context) => {
    const directory = temporaryDirectory(context)
    const now = Date.now() / 1000
    for (const [name, hours] of [
      ['oldest', 50],
      ['older', 40],
      ['new', 1],
      ['abandoned.part', 30],
      ['under-way.part', 2],
    ] as const) {
      const place = path.join(directory, name)
      writeFileSync(place, Buffer.alloc(100))
      utimesSync(place, now, now - hours * 3600)
    }
    await trimDirectory(directory, 450)
    assert.deepEqual(readdirSync(directory).toSorted(), ['new', 'older', 'under-way.part'])
    await trimDirectory(directory, 450)
    assert.equal(readdirSync(directory).length, 3)
  })

  test('has nothing to do where there is no directory', async (context) => {
    await trimDirectory(path.join(temporaryDirectory(context), 'none'), 1)
  })
})
