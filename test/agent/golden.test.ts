/** What clients build on, byte for byte: the OpenAPI document and the table of codes. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { exitCodeOf } from '../../agent/cli/exit-codes.ts'
import { STATUSES } from '../../agent/errors.ts'
import { startAgent } from './harness.ts'

const folder = path.resolve(import.meta.dirname, '../golden')

/** UPDATE_GOLDEN=1 writes it anew; the difference is then read like any other change of the contract. */
function golden(name: string, found: unknown): void {
  const file = path.join(folder, name)
  const text = `${JSON.stringify(found, null, 2)}\n`
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(file, text)
  assert.equal(
    text,
    readFileSync(file, 'utf8'),
    `${name} changed: UPDATE_GOLDEN=1, and read the diff`,
  )
}

suite('agent/golden', () => {
  test('the OpenAPI document is the one that clients know', async (t) => {
    const agent = await startAgent(t)
    const unix = await agent.operator({ path: '/v1/openapi.json' })
    const https = await agent.tenant(null, { path: '/v1/openapi.json' })
    assert.equal(unix.text, https.text)
    golden('openapi.json', unix.json)
  })

  test('every code has the HTTP status and the exit code that scripts know', () => {
    const codes = Object.entries(STATUSES).toSorted(([a], [b]) => (a < b ? -1 : 1))
    golden(
      'codes.json',
      Object.fromEntries(codes.map(([code, status]) => [code, { status, exit: exitCodeOf(code) }])),
    )
  })
})
