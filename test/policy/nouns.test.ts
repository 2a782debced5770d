import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import {
  BadNoun,
  DOCKER_DEFAULT_CAPABILITIES,
  defaultHostname,
  parseArguments,
  parseCapability,
  parseDigest,
  parseEnvironment,
  parseHostname,
  parseIsolationLevel,
  parseKvmClass,
  parseMemoryMib,
  parsePodId,
  parseTenantId,
  parseTrust,
  parseUser,
  parseVcpus,
  parseWorkingDirectory,
  STRONGEST_FIRST,
  UNTRUSTED_DEFAULT_CAPABILITIES,
} from '../../policy/index.ts'

const nouns: Readonly<
  Record<string, { parse: (input: unknown) => unknown; good: unknown[]; bad: unknown[] }>
> = {
  'tenant id': {
    parse: parseTenantId,
    good: ['a', 'acme', 'a-1', 'a'.repeat(40)],
    bad: ['', '1a', '-a', 'a-', 'A', 'a_b', 'a/b', '..', 'a\n', 'a'.repeat(41), 'ä', null, 1],
  },
  trust: { parse: parseTrust, good: ['untrusted', 'verified', 'trusted'], bad: ['Trusted', '', 0] },
  'pod id': {
    parse: parsePodId,
    good: ['0193b5a0-7e4c-7abc-8def-0123456789ab'],
    bad: [
      '0193b5a0-7e4c-4abc-8def-0123456789ab',
      '0193B5A0-7e4c-7abc-8def-0123456789ab',
      '0193b5a0-7e4c-7abc-cdef-0123456789ab',
      '0193b5a07e4c7abc8def0123456789ab',
      '0193b5a0-7e4c-7abc-8def-0123456789ab\n',
      '../0193b5a0-7e4c-7abc-8def-0123456789ab',
    ],
  },
  hostname: {
    parse: parseHostname,
    good: ['web-1', '1', 'a'.repeat(63)],
    bad: ['', 'a.b', '-a', 'a-', 'A', 'a'.repeat(64)],
  },
  digest: {
    parse: parseDigest,
    good: [`sha256:${'0a'.repeat(32)}`],
    bad: [
      'sha256:',
      `sha256:${'0A'.repeat(32)}`,
      `sha256:${'0a'.repeat(31)}`,
      `sha512:${'0a'.repeat(64)}`,
      `sha256:${'0a'.repeat(32)}/../x`,
    ],
  },
  memory_mib: {
    parse: parseMemoryMib,
    good: [128, 256, 3072, 3074, 16_384],
    bad: [0, 127, 126, 129, 128.5, 3073, 16_386, -128, '128', Number.NaN, Infinity, 128n],
  },
  vcpus: { parse: parseVcpus, good: [1, 2, 8], bad: [0, 9, 1.5, '1', -1, null] },
  'isolation level': {
    parse: parseIsolationLevel,
    good: ['host', 'container', 'vm'],
    bad: ['VM', 'none', '', 0, 'toString'],
  },
  'kvm class': { parse: parseKvmClass, good: ['software', 'hardware'], bad: ['none', null] },
  capability: {
    parse: parseCapability,
    good: ['CAP_CHOWN', 'CAP_CHECKPOINT_RESTORE'],
    bad: ['CHOWN', 'cap_chown', 'ALL', '', 0],
  },
  args: {
    parse: parseArguments,
    good: [['/bin/sh'], ['a', ''], ['a', '-c', 'é✓😀']],
    bad: [
      [],
      [''],
      ['a\0'],
      ['a', '\ud800'],
      ['a', 1],
      'a',
      Array(257).fill('a'),
      ['a'.repeat(32_768)],
      [null],
    ],
  },
  env: {
    parse: parseEnvironment,
    good: [[], ['A=1', 'B='], ['A=b=c']],
    bad: [
      ['A'],
      ['=1'],
      ['A=1', 'A=2'],
      ['A=\0'],
      ['A\0=1'],
      ['A=\udc00'],
      [`A=${'x'.repeat(32_768)}`],
      [1],
      'A=1',
    ],
  },
  cwd: {
    parse: parseWorkingDirectory,
    good: ['/', '/a/../b', '/ä'],
    bad: ['', 'a', './a', '/\0', `/${'a'.repeat(4095)}`, null],
  },
  user: {
    parse: parseUser,
    good: ['', '0', '0:0', '1000:100', 'www-data', 'a:b', 'a:1', '2147483647', '1:2147483647'],
    bad: [
      '2147483648',
      '1:2147483648',
      '4294967295',
      '4294967296',
      '99999999999',
      '-1',
      '01',
      '1a',
      ':1',
      '1:',
      'a:b:c',
      'a b',
      'a\n',
      '0x0',
      'ä',
      null,
    ],
  },
}

for (const [noun, { parse, good, bad }] of Object.entries(nouns)) {
  suite(`policy/nouns: ${noun}`, () => {
    for (const input of good) {
      test(`takes ${JSON.stringify(input).slice(0, 50)}`, () => {
        assert.equal(parse(input), input)
      })
    }
    for (const input of bad) {
      const shown = typeof input === 'bigint' ? `${input}n` : JSON.stringify(input).slice(0, 50)
      test(`refuses ${shown}`, () => {
        assert.throws(
          () => parse(input),
          (error) => error instanceof BadNoun && error.noun === noun,
        )
      })
    }
  })
}

suite('policy/nouns: sets', () => {
  test('orders levels by strength', () => {
    assert.deepEqual(STRONGEST_FIRST, ['vm', 'container', 'host'])
  })

  test('keeps raw sockets and device nodes from tenants that are not trusted', () => {
    assert.equal(DOCKER_DEFAULT_CAPABILITIES.length, 14)
    const gone = DOCKER_DEFAULT_CAPABILITIES.filter(
      (one) => !UNTRUSTED_DEFAULT_CAPABILITIES.includes(one),
    )
    assert.deepEqual(gone, ['CAP_MKNOD', 'CAP_NET_RAW'])
  })

  test('names a pod that asked for no host name by its id', () => {
    const pod = parsePodId('0193b5a0-7e4c-7abc-8def-0123456789ab')
    assert.equal(defaultHostname(pod), 'pod-0123456789ab')
  })
})

suite('policy/nouns: the guest', () => {
  test('takes just the user numbers that guest-init takes', () => {
    const file = path.resolve(import.meta.dirname, '../../native/guest-init/src/users.rs')
    const found = /pub const ID_MAX: u32 = (?<max>[0-9_]+);/u.exec(readFileSync(file, 'utf8'))
    const max = Number(found?.groups?.['max']?.replaceAll('_', ''))
    assert.equal(parseUser(`${max}:${max}`), `${max}:${max}`)
    assert.throws(() => parseUser(String(max + 1)), BadNoun)
  })
})
