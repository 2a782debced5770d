import assert from 'node:assert/strict'
import { uptime } from 'node:os'
import { suite, test } from 'node:test'
import { type Clock, deadlineIn, systemClock } from '../../audit/clock.ts'
import { isRecordType, type RecordHead, recordBytes } from '../../audit/record.ts'
import { note } from './harness.ts'

const head: RecordHead = {
  id: '01935c7e-8b3a-7cc1-9f00-000000000001',
  time: '2026-11-24T12:00:00.000000Z',
  clock: { boot_id: '5c6f9a6e-33f3-4b0e-9a1c-0d7f3a1f6f10', boottime_ns: '1' },
  node: { id: 'host-1', agent: { version: '0.1.0', digest: null }, config: null },
}

suite('audit/record', () => {
  test('writes a record as these bytes, now and for ever', () => {
    assert.equal(
      recordBytes(head, note(7, 2)).toString(),
      '{"clock":{"boot_id":"5c6f9a6e-33f3-4b0e-9a1c-0d7f3a1f6f10","boottime_ns":"1"},' +
        '"id":"01935c7e-8b3a-7cc1-9f00-000000000001",' +
        '"node":{"agent":{"digest":null,"version":"0.1.0"},"config":null,"id":"host-1"},' +
        '"pid":7,"reason":"xx","time":"2026-11-24T12:00:00.000000Z","type":"agent.stop",' +
        '"v":"casemate.audit/1"}',
    )
  })

  test('refuses the first byte over the limit', () => {
    const empty = recordBytes(head, note(7)).length
    assert.equal(recordBytes(head, note(7, 16_384 - empty)).length, 16_384)
    assert.throws(() => recordBytes(head, note(7, 16_385 - empty)), {
      code: 'AUDIT_RECORD_TOO_LARGE',
    })
  })

  test('knows its types and no others', () => {
    assert.ok(isRecordType('launch.intent'))
    assert.ok(!isRecordType('launch.intents'))
    assert.ok(!isRecordType('__proto__'))
  })
})

suite('audit/clock', () => {
  test('reads the time since boot, the boot and the hour', () => {
    const clock = systemClock()
    assert.ok(Math.abs(Number(clock.boottimeNs()) / 1e9 - uptime()) < 5)
    assert.match(clock.bootId, /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u)
    assert.match(clock.now(), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/u)
  })

  test('makes ids of version 7 that sort by time', () => {
    const ids = Array.from({ length: 1000 }, () => systemClock().uuid())
    for (const id of ids) {
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u)
    }
    assert.equal(new Set(ids).size, ids.length)
    const times = ids.map((id) => id.slice(0, 13))
    assert.deepEqual(times, times.toSorted())
  })

  test('sets deadlines on the clock that nobody sets back', () => {
    const clock: Clock = { ...systemClock(), boottimeNs: () => 5_000_000_000n }
    assert.deepEqual(deadlineIn(clock, 25_000), { boottime_ns: '30000000000' })
  })
})
