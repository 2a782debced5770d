/** What people give on the command line and how it is refused; no agent is needed to see it. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { suite, test } from 'node:test'
import { integer, readNamed, UsageError } from '../../../agent/cli/arguments.ts'

const cli = path.resolve(import.meta.dirname, '../../../agent/cli/main.ts')
const nowhere = path.join(import.meta.dirname, 'nowhere')

suite('agent/cli arguments', () => {
  test('takes whole numbers and nothing else', () => {
    assert.equal(integer('0'), 0)
    assert.equal(integer('3072'), 3072)
    for (const text of ['', 'abc', '-1', '1.5', '1e3', ' 1', '1'.repeat(16)]) {
      assert.throws(() => integer(text), { code: 'commander.invalidArgument' }, text)
    }
  })

  test('names the option, the file and the reason when a file cannot be read', () => {
    assert.match(readNamed('--key', import.meta.filename), /names the option/u)
    const reasons = {
      [nowhere]: /--key .*nowhere.*no such file/u,
      [import.meta.dirname]: /EISDIR/u,
    }
    for (const [file, reason] of Object.entries(reasons)) {
      assert.throws(
        () => readNamed('--key', file),
        (error) => error instanceof UsageError && reason.test(error.message),
      )
    }
  })

  test('ends with 2, and a sentence that says what to give instead', () => {
    const wrong: readonly (readonly [readonly string[], RegExp])[] = [
      [['--url', 'nonsense', '-t', 'acme', 'ps'], /must be https, such as/u],
      [['--url', 'http://127.0.0.1:1', '-t', 'acme', 'ps'], /must be https, such as/u],
      [['--token-file', '/dev/null', '-t', 'acme', 'ps'], /holds no access token/u],
      [['-t', 'acme', 'run', '--memory', 'much', 'image'], /--memory.*whole number/u],
      [['tenant', 'create', 'acme', '--trust', 'some'], /untrusted, verified, trusted/u],
      [['tenant', 'change', 'a', '--egress', 'none', '--egress', 'internet'], /none stands alone/u],
      [['tenant', 'create', 'acme', '--image-rule', import.meta.filename], /is no JSON/u],
      [
        ['image', 'verify', '127.0.0.1:1/x', '--key', import.meta.filename],
        /no public key in PEM/u,
      ],
      [['audit', 'verify', nowhere, '--vkey', nowhere], /--vkey .*no such file/u],
    ]
    for (const [args, sentence] of wrong) {
      const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args], {
        env: {},
        encoding: 'utf8',
      })
      assert.match(stderr, sentence)
      assert.equal(status, 2, args.join(' '))
      assert.equal(stdout, '')
    }
  })
})
