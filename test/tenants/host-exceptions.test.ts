import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { parseExceptableId } from '../../policy/index.ts'
import { type NewException, parseExceptionReason, type Tenants } from '../../tenants/index.ts'
import { open, openAt, root, START_MS } from './fixtures.ts'

const smt = parseExceptableId('smt')
const until = (ms: number): NewException => ({
  finding: smt,
  reason: parseExceptionReason('The machine goes in May'),
  untilMs: START_MS + ms,
})

const add = (tenants: Tenants, exception: NewException, record = 3) =>
  tenants.addHostException(tenants.operator(root), exception, async () => record)

suite('tenants: exceptions for the host', () => {
  test('keeps who recorded one, where, and until when, over a restart', async (t) => {
    const { tenants, stateDir, clock } = open(t)
    await add(tenants, until(1000))
    await tenants.close()
    const again = openAt(stateDir, clock)
    t.after(async () => await again.close())
    assert.deepEqual(await again.hostExceptions(), [
      { ...until(1000), identity: 'uid:0', createdMs: START_MS, record: 3 },
    ])
  })

  test('has it in force until the very moment of its end, and shows it after that', async (t) => {
    const { tenants, clock } = open(t)
    await add(tenants, until(1000))
    clock.nowMs += 999
    assert.equal((await tenants.activeHostExceptions()).length, 1)
    clock.nowMs += 1
    assert.deepEqual(await tenants.activeHostExceptions(), [])
    assert.equal((await tenants.hostExceptions()).length, 1)
  })

  test('changes nothing when it cannot be put on record', async (t) => {
    const { tenants } = open(t)
    await add(tenants, until(1000), 3)
    const broken = tenants.addHostException(tenants.operator(root), until(9000), async () => {
      throw new Error('no log')
    })
    await assert.rejects(broken, /no log/u)
    const [only, ...others] = await tenants.hostExceptions()
    assert.deepEqual([only?.untilMs, only?.record, others.length], [START_MS + 1000, 3, 0])
  })

  test('replaces one for the same finding, and removes it once', async (t) => {
    const { tenants } = open(t)
    await add(tenants, until(1000), 3)
    await add(tenants, until(2000), 4)
    const all = await tenants.hostExceptions()
    assert.deepEqual(
      all.map(({ untilMs, record }) => [untilMs, record]),
      [[START_MS + 2000, 4]],
    )
    const operator = tenants.operator(root)
    assert.equal(await tenants.removeHostException(operator, smt), true)
    assert.equal(await tenants.removeHostException(operator, smt), false)
    assert.deepEqual(await tenants.hostExceptions(), [])
  })
})
