import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { decide } from '../../policy/decide.ts'
import {
  type HealthRequest,
  type ImageHealthcheck,
  parseExecProbe,
  Refusal,
} from '../../policy/index.ts'
import { defaults, image, question, request } from './fixtures.ts'

const SECOND = 1_000_000_000
const nothing = { intervalMs: 0, timeoutMs: 0, startPeriodMs: 0, startIntervalMs: 0, retries: 0 }
const none = {
  intervalMs: null,
  timeoutMs: null,
  startPeriodMs: null,
  startIntervalMs: null,
  retries: null,
}
const asks = (changes: Partial<HealthRequest> = {}): HealthRequest => ({
  disabled: false,
  probe: null,
  times: none,
  onUnhealthy: 'none',
  ...changes,
})

/** The plan's check of an image and a request, or the refusal. */
function planned(
  healthcheck: ImageHealthcheck | null,
  health: HealthRequest | null = null,
): unknown {
  const config = { ...image().config, healthcheck }
  const plan = decide(
    question({ image: image({ config }), request: request({ health }) }),
    defaults,
  )
  return plan instanceof Refusal ? plan.code : plan.health
}

const of = (
  words: readonly string[],
  changes: Partial<ImageHealthcheck> = {},
): ImageHealthcheck => ({
  test: words,
  shell: [],
  times: nothing,
  ...changes,
})
const DEFAULTS = {
  intervalMs: 30_000,
  timeoutMs: 30_000,
  startPeriodMs: 0,
  startIntervalMs: 5000,
  retries: 3,
  onUnhealthy: 'none',
}

suite('policy/health', () => {
  test('an image’s HEALTHCHECK is what Docker takes it for', () => {
    assert.equal(planned(null), null)
    assert.equal(planned(of([])), null)
    assert.equal(planned(of(['NONE'])), null)
    const exec = (args: readonly string[]) => ({ probe: { kind: 'exec', args }, ...DEFAULTS })
    assert.deepEqual(planned(of(['CMD', '/check', '-x'])), exec(['/check', '-x']))
    const command = 'curl -f localhost || exit 1'
    assert.deepEqual(planned(of(['CMD-SHELL', command])), exec(['/bin/sh', '-c', command]))
    const shell = ['/bin/bash', '-ec']
    assert.deepEqual(planned(of(['CMD-SHELL', command], { shell })), exec([...shell, command]))
    const times = {
      intervalMs: 90 * SECOND,
      timeoutMs: SECOND,
      startPeriodMs: SECOND / 2,
      startIntervalMs: 2 * SECOND,
      retries: 7,
    }
    assert.deepEqual(planned(of(['CMD', 'a'], { times })), {
      ...exec(['a']),
      intervalMs: 90_000,
      timeoutMs: 1000,
      startPeriodMs: 500,
      startIntervalMs: 2000,
      retries: 7,
    })
  })

  test('a check that cannot be is refused, and not left out', () => {
    for (const words of [
      ['CMD'],
      ['CMD-SHELL'],
      ['CMD-SHELL', 'a', 'b'],
      ['ICMP', 'a'],
      ['none'],
    ]) {
      assert.equal(planned(of(words)), 'IMAGE_CONFIG_INVALID', words.join(' '))
    }
    const hasty = { ...nothing, intervalMs: SECOND / 2 }
    assert.equal(planned(of(['CMD', 'a'], { times: hasty })), 'IMAGE_CONFIG_INVALID')
    assert.equal(planned(null, asks()), 'HEALTHCHECK_MISSING')
    assert.equal(planned(of(['NONE']), asks({ onUnhealthy: 'stop' })), 'HEALTHCHECK_MISSING')
  })

  test('a request is laid over the image’s, member by member', () => {
    const hasty = of(['CMD', 'a'], { times: { ...nothing, intervalMs: 5, timeoutMs: SECOND } })
    assert.equal(planned(hasty, asks({ disabled: true })), null)
    assert.deepEqual(planned(hasty, asks({ times: { ...none, intervalMs: 2000 } })), {
      ...DEFAULTS,
      probe: { kind: 'exec', args: ['a'] },
      intervalMs: 2000,
      timeoutMs: 1000,
    })
    const probe = parseExecProbe(['b'])
    assert.deepEqual(planned(of(['ICMP']), asks({ probe, onUnhealthy: 'stop' })), {
      ...DEFAULTS,
      probe,
      onUnhealthy: 'stop',
    })
  })
})
