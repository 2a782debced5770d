import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { DETACH_KEYS, DetachKeys } from '../../../agent/cli/detach-keys.ts'

const pass = (keys: DetachKeys, typed: string): string | null =>
  keys.take(Buffer.from(typed))?.toString() ?? null

suite('agent/cli/detach-keys', () => {
  test('finds the keys wherever the bytes are cut, and passes on what only began like them', () => {
    const keys = new DetachKeys(DETACH_KEYS)
    assert.equal(pass(keys, 'ls\r'), 'ls\r')
    assert.equal(pass(keys, 'a\u0010'), 'a')
    assert.equal(pass(keys, 'b'), '\u0010b')
    assert.equal(pass(keys, '\u0010'), '')
    assert.equal(pass(keys, '\u0010'), '\u0010')
    assert.equal(pass(keys, '\u0011'), null)
    assert.equal(pass(new DetachKeys('a,a,b'), 'aaab'), null)
    assert.equal(pass(new DetachKeys('ctrl-@'), 'x\u0000'), null)
  })

  test('refuses keys that there are not', () => {
    for (const text of ['', 'ctrl-', 'ctrl-1', 'ctrl-p,', 'ctrl-P', 'ab', 'ü']) {
      assert.throws(() => new DetachKeys(text), /Keys are characters/u, text)
    }
  })
})
