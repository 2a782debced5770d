/** The names that the API shows are those that VMM and spawn speak of, in their order. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { DEVICE_COUNTERS, DEVICES, MACHINE_COUNTERS } from '../../native/counters.ts'

const source = readFileSync(
  path.resolve(import.meta.dirname, '../../native/wire/src/metrics.rs'),
  'utf8',
)

/** Strings of the array constant `name`. */
function namesOf(name: string): readonly string[] {
  const array = new RegExp(`const ${name}: \\[&str; (\\d+)\\] =\\s*\\[([^\\]]*)\\]`, 'u').exec(
    source,
  )
  const names = [...(array?.[2] ?? '').matchAll(/"(\w+)"/gu)].map((found) => found[1] ?? '')
  assert.equal(names.length, Number(array?.[1]), name)
  return names
}

suite('native/counters', () => {
  test('are named as in Rust', () => {
    assert.deepEqual([...MACHINE_COUNTERS], namesOf('MACHINE_COUNTERS'))
    assert.deepEqual([...DEVICE_COUNTERS], namesOf('DEVICE_COUNTERS'))
    assert.deepEqual([...DEVICES], namesOf('DEVICES'))
  })
})
