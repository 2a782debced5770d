/** What `npm run bench` prints, for people and for programs. */
import assert from 'node:assert/strict'
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import path from 'node:path'
import { suite, test } from 'node:test'

const script = path.resolve(import.meta.dirname, '../../scripts/bench.mjs')
const NOBODY = 65_534

function bench(args: readonly string[], options: object = {}): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [script, ...args], { encoding: 'utf8', ...options })
}

suite('bench', () => {
  test('prints one JSON object and nothing else, with host, commit and every number of a figure', () => {
    const { status, stdout, stderr } = bench(['--json', '--only', 'signature'])
    assert.equal(status, 0, stderr)
    const report = JSON.parse(stdout) as Record<string, unknown>
    assert.deepEqual(Object.keys(report).toSorted(), [
      'failed',
      'figures',
      'host',
      'kvm',
      'skipped',
      'time',
      'v',
    ])
    const { host, figures } = report as {
      host: Record<string, unknown>
      figures: Record<string, unknown>[]
    }
    assert.ok(host['cpu'] !== '' && Number(host['cores']) > 0 && host['node'] === process.version)
    assert.match(String(host['commit']), /^(?:[0-9a-f]{40}|null)$/u)
    assert.deepEqual(
      figures.map(({ id, unit, n }) => [id, unit, n]),
      [
        ['signature.verify.tag', 'us', 1000],
        ['signature.verify.bundle', 'us', 1000],
      ],
    )
    for (const { median, min, max, p99 } of figures) {
      assert.ok(0 < Number(min) && Number(min) <= Number(median) && Number(median) <= Number(p99))
      assert.ok(Number(p99) <= Number(max))
    }
  })

  test('prints a table under the host without --json', () => {
    const { status, stdout } = bench(['--only', 'signature'])
    assert.equal(status, 0)
    assert.match(stdout, /commit [0-9a-f]{40}|commit unknown/u)
    assert.match(stdout, /^figure +unit +n +median +p99 +min +max$/mu)
    assert.match(stdout, /^signature\.verify\.tag +us +1000( +[0-9.]+){4}$/mu)
  })

  test('names the groups there are when asked for another', () => {
    const { status, stdout, stderr } = bench(['--only', 'speed'])
    assert.deepEqual([status, stdout], [2, ''])
    assert.match(stderr, /no group speed; there are: vmm, pod, container, port, policy/u)
  })

  test('skips virtual machines with one line when it is not root', (t) => {
    const user = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
    if (spawnSync(process.execPath, ['--check', script], user).status !== 0) {
      t.skip('other users cannot read the checkout')
      return
    }
    const { status, stdout, stderr } = bench(['--json', '--only', 'vmm', '--only', 'pod'], user)
    assert.equal(status, 0, stderr)
    const { figures, skipped } = JSON.parse(stdout) as { figures: unknown; skipped: object[] }
    assert.deepEqual(figures, [])
    assert.deepEqual(
      skipped.map((one) => Reflect.get(one, 'group') as unknown),
      ['vmm', 'pod'],
    )
    assert.match(stderr, /^vmm: skipped: not root.*\npod: skipped: not root.*\n$/u)
  })
})
