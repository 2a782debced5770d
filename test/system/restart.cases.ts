/** Spawn is killed and restarted under a virtual machine that counts aloud: the guest, its output and its end do not notice. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { PodStream } from '../../native/pod-stream.ts'
import type { Template } from '../../native/spawn-answers.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { Running, sh, start } from './launch.ts'

const LINES = 300
/** Counts, hears a word, counts on, hears another and ends. */
const COUNTING = `
  count() { while [ $i -lt $1 ]; do echo "line $i"; i=$((i + 1)); done; }
  i=0; count ${LINES}; read word; echo "took $word"; count ${2 * LINES}; read word; echo "took $word"; exit 3`

/** The spawn that is kept running, which is the keeper's child with these arguments. */
export function spawnOf(host: SpawnHost): number {
  const keeper = host.program.pid
  const children = readFileSync(`/proc/${keeper}/task/${keeper}/children`, 'utf8')
  const found = children
    .split(' ')
    .filter((pid) => pid !== '')
    .find((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('casemate-spawn\0--config'),
    )
  if (found === undefined) throw new Error('no spawn is kept running')
  return Number(found)
}

async function keptTemplate({ spawn }: SpawnHost): Promise<Template> {
  const { template, kept } = await spawn.template(1, 128)
  assert.ok(kept)
  return template
}

export function restartCases(machine: Machine): void {
  suite('system/restart', { concurrency: 1 }, () => {
    test('a guest counts on while spawn is killed and restarted: no line is lost or doubled', async () => {
      await machine.template // kept on disk, for a spawn that is made of the same
      const keep = ['/bin/sh', '-c', 'exec "$0" --keep "$@"']
      const on = await machine.another('kept', { template_dir: machine.artifacts.templates }, keep)
      const template = machine.level === 'vm' ? await keptTemplate(on) : null
      const running = await start(machine, { args: sh(COUNTING), on, template })
      const killed = async (signal: NodeJS.Signals): Promise<void> => {
        const before = spawnOf(on)
        process.kill(before, signal)
        const status = (await on.spawn.list()).find(({ pod }) => pod === running.pod)
        assert.equal(status?.state, 'running', signal)
        assert.equal(status.pid, running.pid)
        assert.notEqual(spawnOf(on), before)
      }
      await running.says(/line 50\n/u)
      await killed('SIGKILL')
      await running.says(/line 150\n/u)
      await killed('SIGKILL')
      await running.says(new RegExp(`line ${LINES - 1}\n`, 'u'))
      // The stream of the launch goes on,
      running.stream.stdin(Buffer.from('first\n'))
      await running.says(/took first\n/u)
      await killed('SIGTERM')
      // and a fresh one can be had of the next spawn.
      const { stream } = await on.spawn.adopt(running.pod)
      const second = new Running(running.prepared, running.pid, new PodStream(stream))
      await second.says(new RegExp(`line ${2 * LINES - 1}\n`, 'u'))
      second.stream.stdin(Buffer.from('second\n'))
      const { exit, stdout, notes } = await second.end()
      assert.deepEqual([exit.how, exit.value, exit.cause], ['code', 3, 'APP_EXIT'], notes)
      const lines = (from: number): readonly string[] =>
        Array.from({ length: LINES }, (_, index) => `line ${from + index}`)
      const expected = [...lines(0), 'took first', ...lines(LINES), 'took second', '']
      assert.deepEqual(stdout.split('\n'), expected)
      await assert.rejects(on.spawn.metrics(running.pod), { code: 'POD_NOT_RUNNING' })
      await on.program.end()
    })
  })
}
