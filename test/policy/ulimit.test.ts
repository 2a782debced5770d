import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import {
  decide,
  ISOLATION_LEVELS,
  type IsolationLevel,
  parseGroups,
  parseUlimits,
  Refusal,
} from '../../policy/index.ts'
import { defaults, host, image, request, tenant } from './fixtures.ts'

const UNLIMITED = '18446744073709551615'

suite('policy/ulimit', () => {
  test('knows every resource that the spec has, and no other', () => {
    const source = readFileSync(
      path.join(import.meta.dirname, '../../native/ticket/src/app.rs'),
      'utf8',
    )
    const list = /RESOURCES: \[&str; 16\] = \[([^\]]*)\]/u.exec(source)?.[1] ?? ''
    const names = [...list.matchAll(/"RLIMIT_(\w+)"/gu)].map(([, name = '']) => name.toLowerCase())
    assert.equal(names.length, 16)
    for (const name of names) {
      const [limit] = parseUlimits([`${name}=1:2`])
      assert.deepEqual(limit, { type: `RLIMIT_${name.toUpperCase()}`, soft: 1, hard: 2 })
    }
  })

  test('takes one number for both, and what has no limit', () => {
    assert.deepEqual(parseUlimits(['core=0', 'memlock=unlimited', 'stack=8388608:unlimited']), [
      { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      { type: 'RLIMIT_MEMLOCK', soft: UNLIMITED, hard: UNLIMITED },
      { type: 'RLIMIT_STACK', soft: 8_388_608, hard: UNLIMITED },
    ])
  })

  test('refuses everything else', () => {
    for (const text of [
      '',
      'nofile',
      'nofile=',
      'nofile=1:2:3',
      'nofile=2:1',
      'nofile=unlimited:1',
      'nofile=unlimited',
      'nofile=1048577',
      'nofile=01',
      'nofile=-1',
      'nofile=1e3',
      'nofile=1=2',
      'NOFILE=1',
      'RLIMIT_NOFILE=1',
      'core=1000000000000000',
    ])
      assert.throws(() => parseUlimits([text]), { name: 'BadNoun' }, text)
    assert.throws(() => parseUlimits(['core=1', 'core=1']), { name: 'BadNoun' })
    for (const groups of [
      [-1],
      [1.5],
      [2_147_483_648],
      [7, 7],
      Array.from({ length: 65 }, (_, at) => at),
    ])
      assert.throws(() => parseGroups(groups), { name: 'BadNoun' })
  })

  test('a plan has the default of open files unless that was asked for, and the groups', () => {
    const planned = (...ulimits: readonly string[]) => {
      const asked = request({
        ulimits: parseUlimits(ulimits),
        additionalGids: parseGroups([5, 2000]),
      })
      const plan = decide(
        { tenant: tenant(), host: host(), image: image(), files: [], request: asked },
        defaults,
      )
      assert.ok(!(plan instanceof Refusal))
      assert.deepEqual(plan.process.additionalGids, [5, 2000])
      return plan.process.rlimits
    }
    assert.deepEqual(planned('core=0'), [
      { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      { type: 'RLIMIT_NOFILE', soft: 1024, hard: 524_288 },
    ])
    assert.deepEqual(planned('nofile=10'), [{ type: 'RLIMIT_NOFILE', soft: 10, hard: 10 }])
  })

  test('below level vm, limits by which a process leaves its cgroup are the host’s', () => {
    const outcome = (isolation: IsolationLevel, ulimit: string): string => {
      const plan = decide(
        {
          tenant: tenant({ trust: 'trusted' }),
          host: host({ levels: { acme: ['container'] }, launchers: ISOLATION_LEVELS }),
          image: image(),
          files: [],
          request: request({ isolation, ulimits: parseUlimits([ulimit]) }),
        },
        defaults,
      )
      return plan instanceof Refusal ? plan.code : plan.level
    }
    for (const ulimit of ['core=0', 'nice=40', 'rtprio=99', 'rttime=unlimited']) {
      assert.equal(outcome('container', ulimit), 'ULIMIT_NOT_PERMITTED', ulimit)
      assert.equal(outcome('vm', ulimit), 'vm', ulimit)
    }
    assert.equal(outcome('container', 'nofile=5'), 'container')
  })
})
