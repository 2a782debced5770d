/** Faults of real machines by the names that `casemate debug` has for them. */
import assert from 'node:assert/strict'
import { ofExit } from '../../agent/tasks/debug.ts'
import type { PodExit } from '../../native/spawn-answers.ts'

/** What `casemate debug` says of an end that a test brought about: its cause, at that stage. */
export function isNamed(exit: PodExit, stage: string, code: string = exit.cause): void {
  const found = ofExit({ ...exit })
  assert.deepEqual([found?.stage, found?.code], [stage, code], exit.text ?? '')
}
