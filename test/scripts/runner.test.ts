/** What `npm test` counts and how it ends, tried on test files made for it. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, suite, test } from 'node:test'
import { script, scriptsFolder } from './script.ts'

interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

const folder = mkdtempSync(path.join(tmpdir(), 'casemate-runner-'))
after(() => rmSync(folder, { recursive: true }))

/** Runs node:test over one file with the counting reporter. */
function count(text: string): Counts & { readonly failures: readonly string[] } {
  const file = path.join(folder, 'sample.test.mjs')
  const counts = path.join(folder, 'counts.json')
  writeFileSync(file, `import { suite, test } from 'node:test'\n${text}`)
  const reporter = path.join(scriptsFolder, 'test/counting-reporter.mjs')
  const { NODE_TEST_CONTEXT: _ours, ...env } = process.env
  const options = [`--test-reporter=${reporter}`, `--test-reporter-destination=${counts}`]
  spawnSync(process.execPath, ['--test', ...options, file], { env })
  return JSON.parse(readFileSync(counts, 'utf8'))
}

suite('scripts/test/counting-reporter', () => {
  test('counts tests and not suites', () => {
    const seen = count(`suite('outer', () => {
      test('one', () => {})
      test('two', () => { throw new Error('no') })
      test('three', { skip: 'because' }, () => {})
    })`)
    assert.deepEqual([seen.passed, seen.failed, seen.skipped], [1, 1, 1])
    assert.match(seen.failures[0] ?? '', /^two \(.*sample\.test\.mjs:\d+\)$/u)
  })

  test('counts a file that does not even load as failed', () => {
    const seen = count("throw new Error('at once')")
    assert.deepEqual([seen.passed, seen.failed], [0, 1])
  })
})

suite('scripts/test/rust-tests', () => {
  test("adds up cargo's results", async () => {
    const { countCargo } = await script<{ countCargo: (output: string) => Counts }>(
      'test/rust-tests.mjs',
    )
    const output = [
      'test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s',
      'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out',
    ]
    assert.deepEqual(countCargo(output.join('\n')), { passed: 15, failed: 2, skipped: 1 })
  })
})

suite('scripts/test/report', () => {
  /** Output and exit code of a run that reports what `body` says. */
  function report(body: string): { readonly output: string; readonly status: number | null } {
    const module = JSON.stringify(path.join(scriptsFolder, 'test/report.mjs'))
    const text = `import { Report } from ${module}\nconst report = new Report()\n${body}\nprocess.exitCode = report.close()`
    const ran = spawnSync(process.execPath, ['--input-type=module', '-e', text], {
      encoding: 'utf8',
    })
    return { output: ran.stdout, status: ran.status }
  }

  test('closes with one line of counts and succeeds only when nothing failed', () => {
    const good = report("report.pass('a', 1); report.skip('b', 'no Go')")
    assert.equal(good.output.trimEnd().split('\n').at(-1), '1 passed, 0 failed, 1 skipped')
    assert.equal(good.status, 0)
    const bad = report("report.pass('a', 1); report.fail('b')")
    assert.match(bad.output, /== failed\n {2}b\n\n1 passed, 1 failed, 0 skipped\n$/u)
    assert.equal(bad.status, 1)
  })

  test('fails when nothing ran', () => {
    assert.equal(report('').status, 1)
  })
})

suite('scripts/run', () => {
  test('refuses a command it does not know and names those it does', () => {
    const ran = spawnSync(process.execPath, [path.join(scriptsFolder, 'run.mjs'), 'nothing'], {
      encoding: 'utf8',
    })
    assert.equal(ran.status, 2)
    assert.match(ran.stderr, /no command nothing; there are: .*demo.*casemate/u)
  })
})
