import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { suite, test } from 'node:test'
import { decide, parseSignal, parseStopTimeoutMs, Refusal } from '../../policy/index.ts'
import { defaults, host, image, request, tenant } from './fixtures.ts'

suite('policy/signal', () => {
  test('knows every signal of this system by both of its names and its number', () => {
    for (const [name, number] of Object.entries(constants.signals)) {
      if (name === 'SIGUNUSED') continue
      assert.equal(parseSignal(name), number, name)
      assert.equal(parseSignal(name.slice(3)), number, name)
      assert.equal(parseSignal(String(number)), number, name)
    }
  })

  test('counts real-time signals from both ends', () => {
    for (const [name, number] of [
      ['RTMIN', 34],
      ['SIGRTMIN+1', 35],
      ['RTMIN+30', 64],
      ['RTMAX', 64],
      ['SIGRTMAX-30', 34],
      ['32', 32],
      ['64', 64],
    ] as const)
      assert.equal(parseSignal(name), number, name)
  })

  test('takes nothing else', () => {
    for (const text of [
      '',
      '0',
      '65',
      '-9',
      '09',
      '9 ',
      'term',
      'SIG',
      'SIGSIGTERM',
      'constructor',
      'RTMIN-1',
      'RTMIN+31',
      'RTMAX+1',
      'RTMIN+0',
      9,
      null,
    ])
      assert.throws(() => parseSignal(text), { name: 'BadNoun' }, String(text))
    for (const ms of [-1, 0.5, 600_001, '5', null]) {
      assert.throws(() => parseStopTimeoutMs(ms), { name: 'BadNoun' })
    }
  })

  test('a plan has the request’s signal before the image’s before TERM, and its time', () => {
    const config = image().config
    const planned = (stopSignal: string | null, asked: string | null) => {
      const question = {
        tenant: tenant(),
        files: [],
        host: host(),
        image: image({ config: { ...config, stopSignal } }),
        request: request({
          stopSignal: asked === null ? null : parseSignal(asked),
          stopTimeoutMs: parseStopTimeoutMs(1500),
        }),
      }
      const plan = decide(question, defaults)
      return plan instanceof Refusal ? plan.code : [plan.process.stopSignal, plan.limits.stopMs]
    }
    assert.deepEqual(planned(null, null), [15, 1500])
    assert.deepEqual(planned('', null), [15, 1500])
    assert.deepEqual(planned('SIGQUIT', null), [3, 1500])
    assert.deepEqual(planned('SIGQUIT', 'USR1'), [10, 1500])
    assert.equal(planned('SIGNONSENSE', null), 'IMAGE_CONFIG_INVALID')
  })
})
