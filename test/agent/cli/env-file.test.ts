import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { environmentOf } from '../../../agent/cli/env-file.ts'

function written(t: TestContext, text: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'casemate-env-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = path.join(folder, 'env')
  writeFileSync(file, text)
  return file
}

suite('agent/cli/env-file', () => {
  test('reads Docker’s form: values as they stand, comments, names from the environment', (t) => {
    process.env['CASEMATE_TEST_OWN'] = 'own'
    t.after(() => delete process.env['CASEMATE_TEST_OWN'])
    const file = written(
      t,
      '\uFEFF# comment\n  # another\n\nA=1\r\n  B="quoted" # no comment\nC=\nD=a=b\nCASEMATE_TEST_OWN\nCASEMATE_TEST_NONE\n',
    )
    assert.deepEqual(environmentOf([file], []), [
      'A=1',
      'B="quoted" # no comment',
      'C=',
      'D=a=b',
      'CASEMATE_TEST_OWN=own',
    ])
  })

  test('later files come before earlier ones, and single entries before both', (t) => {
    const files = [written(t, 'A=1\nB=1\nC=1\n'), written(t, 'B=2\nC=2\n')]
    assert.deepEqual(environmentOf(files, ['C=3', 'D=3', 'D=4']), ['A=1', 'B=2', 'C=3', 'D=4'])
  })

  test('says which line is wrong', (t) => {
    for (const text of ['A=1\n=x\n', 'A=1\nB C=1\n', 'A=1\nexport B=1\n']) {
      const file = written(t, text)
      assert.throws(() => environmentOf([file], []), { name: 'UsageError', message: /line 2/u })
    }
    assert.throws(() => environmentOf(['/nowhere'], []), { name: 'UsageError' })
  })
})
