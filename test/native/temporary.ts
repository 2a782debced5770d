/** A directory that is gone after the test. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'

export function temporary(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-native-'))
  t.after(() => {
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}
