/** Which network a pod gets. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { decide, type Plan, parseNetworkName, Refusal } from '../../policy/index.ts'
import { defaults, question, request } from './fixtures.ts'

suite('policy/network', () => {
  const decided = (name?: string): Plan | Refusal => {
    const network = name === undefined ? {} : { network: parseNetworkName(name) }
    return decide(question({ request: request(network) }), defaults)
  }
  const networkedOf = (name?: string): unknown => Object(decided(name)).networked

  test('gives a pod its tenant’s network when it asks for it, and none when it does not', () => {
    assert.equal(networkedOf('default'), true)
    assert.equal(networkedOf('none'), false)
    assert.equal(networkedOf(), false)
  })

  test('refuses a network of a later version by its name', () => {
    for (const name of ['host', 'restricted', 'backend']) {
      const refusal = decided(name)
      assert.ok(refusal instanceof Refusal)
      assert.equal(refusal.code, 'NETWORK_NOT_AVAILABLE')
      assert.deepEqual(refusal.facts, { network: name })
    }
    for (const text of ['', 'Default', '-x', 'a'.repeat(64), 'a b']) {
      assert.throws(() => parseNetworkName(text), { name: 'BadNoun' })
    }
  })
})
