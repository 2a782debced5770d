/** What every launcher keeps, whatever the level. A level passes its launcher, and one whose starter refuses. */
import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import type { Launcher } from '../../native/launcher.ts'
import type { LaunchCall } from '../../native/spawn-client.ts'
import type { IsolationLevel } from '../../policy/index.ts'

export interface Level {
  readonly level: IsolationLevel
  /** A launcher whose starter says yes and hands a pod stream over. */
  readonly willing: (t: TestContext) => Promise<Launcher>
  /** A launcher whose starter refuses the ticket with TICKET_SPENT. */
  readonly unwilling: (t: TestContext) => Promise<Launcher>
}

function callOf(t: TestContext): LaunchCall {
  const file = openSync('/dev/null', 'r+')
  t.after(() => closeSync(file))
  return { ticket: 'ticket', record: '{}', spec: '{}', image: file, log: file }
}

export function launcherContract({ level, willing, unwilling }: Level): void {
  test(`${level}: gives the process and its stream, and leaves the caller its descriptors`, async (t) => {
    const call = callOf(t)
    const { pid, stream } = await (await willing(t)).launch(call)
    assert.ok(pid > 0)
    stream.close()
    const again = openSync(`/proc/self/fd/${call.image}`, 'r')
    closeSync(again)
  })

  test(`${level}: starts nothing when it is refused, and says why by its code`, async (t) => {
    await assert.rejects((await unwilling(t)).launch(callOf(t)), { code: 'TICKET_SPENT' })
  })
}
