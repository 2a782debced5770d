/** The launchers of all levels, held to one contract. */
import { createServer } from 'node:net'
import path from 'node:path'
import { suite, type TestContext } from 'node:test'
import { type Launcher, launchers } from '../../native/launcher.ts'
import { spawnClient } from '../../native/spawn-client.ts'
import type { IsolationLevel } from '../../policy/index.ts'
import { fdPeer, frameOf } from './fd-answer.ts'
import { launcherContract } from './launcher.contract.ts'
import { temporary } from './temporary.ts'

const at = (place: string, level: IsolationLevel): Launcher => launchers(spawnClient(place))[level]

async function refusing(t: TestContext, level: IsolationLevel): Promise<Launcher> {
  const place = path.join(temporary(t), 'spawn.sock')
  const no = frameOf({ ok: false, code: 'TICKET_SPENT', message: 'It was used before.' })
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.on('data', () => socket.end(no))
  })
  await new Promise<void>((resolve) => server.listen(place, resolve))
  t.after(() => server.close())
  return at(place, level)
}

suite('native/launcher', () => {
  for (const level of ['vm', 'container', 'host'] as const) {
    launcherContract({
      level,
      willing: async (t) =>
        at((await fdPeer(temporary(t), frameOf({ ok: true, pid: 7 }), 1)).path, level),
      unwilling: (t) => refusing(t, level),
    })
  }
})
