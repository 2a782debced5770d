/** Processes beside an app: with a ticket of their own, and under all that the app is under. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { ExecEnd } from '../../native/exec-stream.ts'
import { copies } from './copy.cases.ts'
import { asked, clock, code, executions, intent, listen, until } from './executions.ts'
import type { Machine } from './harness.ts'
import { probe, type Running, start } from './launch.ts'

export function execCases(machine: Machine): void {
  const { papers, begin, run } = executions(machine)

  suite('system/exec', { concurrency: 1 }, () => {
    let running: Running

    test('runs beside the app, with its own streams, input and code', async () => {
      running = await start(machine, {
        args: probe('say', 'up', 'hold'),
        capabilities: ['CAP_CHOWN'],
      })
      await running.says(/up/u)
      const exec = await begin(
        running,
        asked(['/bin/sh', '-c', 'read a; echo "$a"; echo no >&2; exit 7']),
      )
      const { end } = listen(exec)
      exec.stdin(Buffer.from('typed\n'))
      assert.deepEqual(await end, { stdout: 'typed\n', stderr: 'no\n', end: code(7) })
      const none = await run(running, ['/bin/nothing'])
      assert.ok(none.end.kind === 'error' && none.end.code === 1, JSON.stringify(none))
    })

    test('is not admitted without its own record, for another pod, for another request, or twice', async () => {
      const request = asked(['/bin/echo'])
      const told = async (given: Parameters<Running['stream']['exec']>[0]): Promise<string> => {
        const { end } = await listen(running.stream.exec(given)).end
        return end.kind === 'error' ? `${end.code} ${end.text.split(':')[0] ?? ''}` : end.kind
      }
      const good = await papers(running, request.digest)
      const other = await papers(running, request.digest, clock.uuid())
      const launched = await machine.log.append({
        ...intent(running, request.digest),
        type: 'exec.refused',
        refusal: { code: 'X', message: 'x', policies: [] },
      } as Parameters<Machine['log']['append']>[0])
      const wrong = { ticket: await machine.log.receipt(launched.index), record: launched.bytes }
      assert.equal(
        await told({ ticket: '', record: Buffer.alloc(0), request: request.bytes }),
        '11 TICKET_MISSING',
      )
      assert.equal(await told({ ...other, request: request.bytes }), '11 TICKET_POD')
      assert.equal(await told({ ...wrong, request: request.bytes }), '11 TICKET_RECORD')
      assert.equal(
        await told({ ...good, request: asked(['/bin/cat']).bytes }),
        '11 TICKET_REQUEST_DIGEST',
      )
      const once = await papers(running, request.digest)
      const twice = [1, 2].map(() => told({ ...once, request: request.bytes }))
      assert.deepEqual(await Promise.all(twice), ['exit', '11 TICKET_SPENT'])
    })

    test('is under all that the app is under', async () => {
      const files = ['status', 'limits', 'cgroup', 'mountinfo']
      const [began] = running.events
      // As the host numbers it where the app has no namespace of processes.
      const first = machine.level === 'host' && began?.kind === 'started' ? began.guestPid : 1
      const script = `for of in ${first} self; do for file in ${files.join(' ')}; do
        echo "== $file"; cat /proc/$of/$file; done
        for n in cgroup ipc mnt net pid user uts; do readlink /proc/$of/ns/$n; done; echo ====; done`
      const { stdout } = await run(running, ['/bin/sh', '-c', script])
      const [app = '', own = ''] = stdout.split('====\n').map((part) =>
        part
          .split('\n')
          // What differs between any two processes, or from one moment to the next.
          .filter(
            (line) =>
              !/^(?:Name|State|T?gid|Ngid|P?Pid|NS\w+|Vm\w+|Rss\w+|Hugetlb\w+|FDSize|Threads|SigQ|\w*ctxt_switches|Sig\w+|Shd\w+):/iu.test(
                line,
              ),
          )
          .join('\n'),
      )
      assert.match(own, /^CapBnd:\t0000000000000001$/mu)
      assert.match(own, /^Seccomp:\t2$/mu)
      assert.match(own, /^NoNewPrivs:\t1$/mu)
      assert.match(own, /Max open files +1024 +4096/u)
      assert.equal(own, app)
      const fds = await run(running, ['/bin/sh', '-c', 'ls /proc/self/fd'])
      assert.equal(fds.stdout, '0\n1\n2\n3\n')
    })

    test('copies files in and out, and lists its processes, under all that the app is under', async () => {
      await copies(machine, running)
    })

    test('has a terminal: its size, a change of it, interrupts', async () => {
      const terminal = { rows: 33, columns: 77 }
      const exec = await begin(running, asked(['/bin/sh'], { terminal, env: ['PS1=> '] }))
      const { said, end } = listen(exec)
      await until(exec, said, />/u)
      exec.stdin(Buffer.from('stty size\r'))
      await until(exec, said, /33 77/u)
      exec.resize({ rows: 44, columns: 99 })
      exec.stdin(Buffer.from('stty size; cat\r'))
      await until(exec, said, /44 99/u)
      // An interrupt that came before `cat` had begun would be of `stty`, which has said all it had to say.
      exec.stdin(Buffer.from('typed\r'))
      await until(exec, said, /typed\r\ntyped\r\n/u)
      exec.stdin(Buffer.from('\u0003'))
      await until(exec, said, /\^C[^>]*>/u)
      exec.stdin(Buffer.from('exit 7\r'))
      assert.deepEqual((await end).end, code(7))
    })

    test('is held up alone when nobody reads, and ends when nobody listens', async () => {
      const exec = await begin(running, asked(['/bin/sh', '-c', 'yes']))
      let came = 0
      await new Promise<void>((resolve) => {
        exec.on('output', (_name, bytes) => {
          came += bytes.length
          if (came === 16_384) resolve()
        })
      })
      assert.equal((await run(running, ['/bin/echo', 'still'])).stdout, 'still\n')
      assert.equal(came, 16_384)
      const end = new Promise<ExecEnd>((resolve) => exec.on('end', resolve))
      exec.close()
      // It hears of the terminal or of the pipe that is gone, whichever it comes to first.
      const told = await end
      assert.ok(told.kind === 'exit' && told.how === 'signal', JSON.stringify(told))
      assert.ok([1, 13].includes(told.value), String(told.value))
    })

    test('ends with the agent that asked for it, and the pod goes on', async () => {
      const exec = await begin(running, asked(['/bin/sh', '-c', 'echo in; exec sleep 1004']))
      const { said, end } = listen(exec)
      await until(exec, said, /in/u)
      const { stream: fresh } = await machine.spawn.adopt(running.pod)
      assert.equal((await end).end.kind, 'cut')
      const { PodStream } = await import('../../native/pod-stream.ts')
      const { Running: Again } = await import('./launch.ts')
      running = new Again(running.prepared, running.pid, new PodStream(fresh))
      for (let left = true; left; ) {
        // oxlint-disable-next-line no-await-in-loop -- until the one before is gone
        const { stdout, end: how } = await run(running, [
          '/bin/sh',
          '-c',
          'cat /proc/[0-9]*/cmdline 2>/dev/null; :',
        ])
        assert.ok(how.kind === 'exit', JSON.stringify(how))
        left = stdout.includes('sleep\u00001004')
      }
    })

    test('ends with the app', async () => {
      const exec = await begin(running, asked(['/bin/sh', '-c', 'echo in; exec sleep 1000']))
      const { said, end } = listen(exec)
      await until(exec, said, /in/u)
      running.stream.signal(9)
      assert.deepEqual((await end).end, { kind: 'exit', how: 'signal', value: 9 })
      const ended = await running.end()
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'signal 9', ended.notes)
    })
  })
}
