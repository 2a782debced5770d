import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  nextStart,
  parseRestartRule,
  RESTART_HEALTHY_MS,
  RESTART_MS_MAX,
  RESTART_MS_MIN,
  type RestartRule,
} from '../../policy/index.ts'

function ruleOf(text: string): RestartRule {
  const rule = parseRestartRule(text)
  assert.ok(rule !== null)
  return rule
}

const failed = (rule: string, streak: number, ranMs: number | null = 10) =>
  nextStart({ rule: ruleOf(rule), streak, ranMs, succeeded: false })

suite('policy/restart', () => {
  test('takes the four rules, a bound on failures, and nothing else', () => {
    for (const text of [
      'on-failure',
      'on-failure:1',
      'on-failure:1000000',
      'always',
      'unless-stopped',
    ])
      assert.equal(parseRestartRule(text), text)
    assert.equal(parseRestartRule('no'), null)
    for (const text of [
      '',
      'No',
      'always:3',
      'on-failure:',
      'on-failure:0',
      'on-failure:01',
      'on-failure:-1',
      'on-failure:1000001',
      'on-failure:1e3',
      'on-failure:3:4',
      ' always',
      null,
      3,
      ['always'],
    ])
      assert.throws(() => parseRestartRule(text), { name: 'BadNoun' }, String(text))
  })

  test('waits twice as long each time, up to a minute', () => {
    const delays = Array.from({ length: 9 }, (_, streak) => failed('always', streak)?.delayMs)
    assert.deepEqual(
      delays.slice(0, 4),
      [1, 2, 4, 8].map((factor) => factor * RESTART_MS_MIN),
    )
    assert.deepEqual(delays.slice(-2), [RESTART_MS_MAX, RESTART_MS_MAX])
    assert.equal(failed('always', 1_000_000)?.delayMs, RESTART_MS_MAX)
  })

  test('begins a row anew after a start that ran long enough, and only then', () => {
    assert.deepEqual(failed('always', 5, RESTART_HEALTHY_MS), {
      delayMs: RESTART_MS_MIN,
      streak: 1,
    })
    assert.equal(failed('always', 5, RESTART_HEALTHY_MS - 1)?.streak, 6)
    assert.equal(failed('always', 5, null)?.streak, 6)
  })

  test('gives up after the bound, counted in a row', () => {
    assert.equal(failed('on-failure:3', 2)?.streak, 3)
    assert.equal(failed('on-failure:3', 3), null)
    assert.equal(failed('on-failure:3', 3, RESTART_HEALTHY_MS)?.streak, 1)
    assert.ok(failed('on-failure', 1_000_000))
  })

  test('on-failure lets a success be the end, the others do not', () => {
    const succeeded = (rule: string) =>
      nextStart({ rule: ruleOf(rule), streak: 0, ranMs: 10, succeeded: true })
    assert.equal(succeeded('on-failure'), null)
    assert.ok(succeeded('always'))
    assert.ok(succeeded('unless-stopped'))
  })
})
