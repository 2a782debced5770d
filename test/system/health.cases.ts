/** Health checks of a running pod: asked inside it, under all that its app is under, and heard of by every agent. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { suite, test } from 'node:test'
import type { PodHealth } from '../../native/pod-health.ts'
import { PodStream } from '../../native/pod-stream.ts'
import { type PlannedHealth, type Probe, parseExecProbe } from '../../policy/index.ts'
import { freePort } from './free-port.ts'
import type { Machine } from './harness.ts'
import { Running, sh, start } from './launch.ts'

const WAITS = sh('echo up; while :; do sleep 1000; done')

/** As often as can be; what takes long is the machine's. */
const asked = (probe: Probe, more: Partial<PlannedHealth> = {}): PlannedHealth => ({
  probe,
  intervalMs: 1000,
  startIntervalMs: 1000,
  startPeriodMs: 0,
  timeoutMs: 60_000,
  retries: 2,
  onUnhealthy: 'none',
  ...more,
})

/** A port of the pod's own; at level host one of the host's that nobody has. */
const portOf = async ({ level }: Machine): Promise<number> =>
  level === 'host' ? await freePort() : 8080

const shell = (command: string): Probe => parseExecProbe(['/bin/sh', '-c', command])
const brief = ({ state, answer, streak }: PodHealth): string =>
  `${state} ${answer.how} ${answer.value ?? ''} ${streak}`.replaceAll('  ', ' ')

/** The next word on its health that is as `wanted`. */
async function says(stream: PodStream, wanted: RegExp): Promise<PodHealth> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- what comes next
    const [health] = (await once(stream, 'health')) as [PodHealth]
    if (wanted.test(brief(health))) return health
  }
}

export function healthCases(machine: Machine): void {
  const { spawn, level } = machine
  const isVm = level === 'vm'
  /** The same code is asked by the two tests that are for both. */
  const slow = isVm && 'each program of a check takes seconds where KVM is software'
  const first = async (health: PlannedHealth, args = WAITS): Promise<[Running, PodHealth]> => {
    const running = await start(machine, { args, health })
    return [running, await says(running.stream, /./u)]
  }
  const kill = async ({ pod }: Running): Promise<void> => await spawn.kill(pod)

  suite('system/health', { concurrency: 1 }, () => {
    test('asks a server in the pod, and tells a fresh agent what the last one knew', async () => {
      const port = await portOf(machine)
      const script = `mkdir /tmp/w; echo ok >/tmp/w/live; httpd -p ${port} -h /tmp/w; echo up; read a; rm /tmp/w/live; read a`
      const health = asked({ kind: 'http', port, path: '/live' })
      const running = await start(machine, { args: sh(script), health })
      const well = await says(running.stream, /^healthy/u)
      assert.deepEqual([brief(well), well.output], ['healthy code 0 0', 'status 200\n'])
      assert.ok(Math.abs(Date.now() - well.sinceMs) < 600_000, 'the time of the host')
      running.stream.stdin(Buffer.from('now\n'))
      const once404 = await says(running.stream, /code 1/u)
      assert.deepEqual([brief(once404), once404.output], ['healthy code 1 1', 'status 404\n'])
      assert.equal(once404.sinceMs, well.sinceMs)
      const ill = await says(running.stream, /^unhealthy/u)
      assert.equal(brief(ill), 'unhealthy code 1 2')
      assert.ok(ill.sinceMs >= well.sinceMs)
      running.stream.close()
      const fresh = new PodStream((await spawn.adopt(running.pod)).stream)
      const again = await says(fresh, /./u)
      assert.deepEqual([again.state, again.sinceMs], ['unhealthy', ill.sinceMs])
      await kill(new Running(running.prepared, running.pid, fresh))
    })

    test('runs a program under all that the app is under', async () => {
      const names = 'Uid:|Gid:|Groups:|Cap...:|NoNewPrivs:|Seccomp'
      const look = (of: string): string =>
        `grep -E '${names}' /proc/${of}/status; cat /proc/${of}/cgroup`
      const spaces = 'for name in user mnt; do readlink /proc/self/ns/$name; done'
      const probe = shell(
        `until read app </tmp/app; do sleep 0.1; done; { ${look('$app')}; } >/tmp/a; { ${look('self')}; } >/tmp/b; cmp /tmp/a /tmp/b && id -u && ls /proc/self/fd && ${spaces}`,
      )
      const args = sh(`echo $$ >/tmp/app; ${spaces}; while :; do sleep 1000; done`)
      // Ten programs, each of which takes seconds where KVM is software.
      const health = asked(probe, { timeoutMs: isVm ? 600_000 : 60_000 })
      const running = await start(machine, { args, user: '1234:1234', health })
      const told = await says(running.stream, /./u)
      const own = await running.says(/mnt:\[\d+\]/u)
      assert.equal(brief(told), 'healthy code 0 0', told.output)
      assert.equal(told.output, `1234\n0\n1\n2\n3\n${own}`)
      await kill(running)
    })

    test('kills what takes too long, and keeps the end of what it wrote', {
      skip: slow,
    }, async () => {
      const probe = shell('echo begun; sleep 1000 & yes flood; sleep 1000')
      const [running, told] = await first(asked(probe, { timeoutMs: 1000, retries: 1 }))
      assert.equal(brief(told), 'unhealthy timeout 1')
      assert.equal(told.output.length, 4096)
      assert.match(told.output.slice(-12), /^(?:flood|\n|[a-z])+$/u)
      await kill(running)
    })

    test('says why a program could not be asked, and asks on', { skip: slow }, async () => {
      const [running, told] = await first(asked(parseExecProbe(['/nowhere'])))
      assert.equal(brief(told), 'starting not-asked 1')
      assert.match(told.output, /\/nowhere/u)
      assert.equal(brief(await says(running.stream, /./u)), 'unhealthy not-asked 2')
      await kill(running)
    })

    test('leaves nothing of a check behind but what fled, and that ends with the app', {
      skip: slow,
    }, async () => {
      const probe = shell('sleep 1001 & setsid sleep 1002 & true')
      const [running, told] = await first(asked(probe), sh('read a'))
      assert.equal(brief(told), 'healthy code 0 0')
      running.stream.stdin(Buffer.from('now\n'))
      const { exit } = await running.end()
      assert.equal(`${exit.how} ${exit.value}`, 'code 0')
    })

    test('takes a port that nobody has for an answer, and an app that came back', {
      skip: slow,
    }, async () => {
      const port = await portOf(machine)
      const script = `read a; httpd -f -p ${port} -h /tmp & read a; kill $!; read a`
      const running = await start(machine, {
        args: sh(script),
        health: asked({ kind: 'tcp', port }),
      })
      assert.match((await says(running.stream, /starting code 1 1/u)).output, /refused/u)
      await says(running.stream, /unhealthy code 1/u)
      running.stream.stdin(Buffer.from('now\n'))
      const well = await says(running.stream, /healthy code 0 0/u)
      running.stream.stdin(Buffer.from('now\n'))
      const ill = await says(running.stream, /unhealthy code 1 2/u)
      assert.ok(ill.sinceMs > well.sinceMs)
      await kill(running)
    })
  })
}
