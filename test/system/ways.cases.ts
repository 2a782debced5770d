/**
 * The way out of a real pod, over a host and an internet that are network namespaces of the test's own. What is tried
 * of every rule, by frames, is in native/spawn/tests/spawn/ways.rs.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { networkOf } from '../native/networks.ts'
import { archive, directory, file } from '../native/workers/rootfs/tar-writer.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { buildDisk, compile, type DiskFile } from './images.ts'
import { start } from './launch.ts'

const LOOK_MS = 10
const PORT = '7000'
const UPLINK = { ipv4: '169.254.88.0/30', ipv6: 'fdca:5e3a:7e00:fff0::/64', name: 'way0' }

/** A process that sleeps in a network namespace of its own, which is gone with it. */
async function namespace(): Promise<ChildProcess> {
  const child = spawn('unshare', ['--net', 'sleep', '100000'], { stdio: 'ignore' })
  await once(child, 'spawn')
  const of = (process: string): string => readlinkSync(`/proc/${process}/ns/net`)
  while (of(String(child.pid)) === of('self')) await pause(LOOK_MS)
  return child
}

const inside = ({ pid }: ChildProcess): readonly string[] => [
  'nsenter',
  `--net=/proc/${pid}/ns/net`,
]

function run(where: ChildProcess, ...command: readonly string[]): void {
  const [enter = '', ...words] = [...inside(where), ...command]
  execFileSync(enter, words)
}

export function waysCases(machine: Machine): void {
  const templateOf = async ({ spawn: client }: SpawnHost) =>
    machine.level === 'vm' ? (await client.template(1, 128)).template : null

  suite('system/ways', { concurrency: 1 }, () => {
    const children: ChildProcess[] = []
    let image: DiskFile
    let on: SpawnHost

    before(async () => {
      compile('guest/wire', machine.place('wire-out'))
      const program = file('bin/wire', readFileSync(machine.place('wire-out')), { mode: 0o755 })
      image = await buildDisk(machine.place('wire-out.image'), archive(directory('bin'), program))
      const [host, internet] = [await namespace(), await namespace()]
      children.push(host, internet)
      const peer = ['peer', 'name', 'in', 'netns', String(internet.pid)]
      run(host, 'ip', 'link', 'add', 'out', 'type', 'veth', ...peer)
      const ends = [
        [host, 'out', '1'],
        [internet, 'in', '2'],
      ] as const
      for (const [where, device, number] of ends) {
        for (const address of [`192.168.5.${number}/24`, `8.8.4.${number}/24`]) {
          run(where, 'ip', 'addr', 'add', address, 'dev', device)
        }
        run(where, 'ip', 'link', 'set', 'dev', device, 'up')
        run(where, 'ip', 'link', 'set', 'dev', 'lo', 'up')
      }
      run(host, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward')
      const [enter = '', ...words] = inside(internet)
      const server = spawn(enter, [...words, machine.place('wire-out'), 'serve', PORT])
      children.push(server)
      await once(server.stdout, 'data')
      await machine.template
      on = await machine.another('ways', { uplink: UPLINK }, inside(host))
    })
    after(() => {
      for (const child of children.toReversed()) child.kill('SIGKILL')
    })

    test('a pod reaches what its egress lists, and nothing else', async () => {
      const template = await templateOf(on)
      const ports = { from: Number(PORT), to: Number(PORT) }
      const network = networkOf({
        gateways: ['10.88.0.1'],
        egress: { internet: false, rules: [{ cidr: '192.168.5.2/32', ports, protocol: 'tcp' }] },
      })
      const targets = [
        ['192.168.5.2', PORT],
        ['192.168.5.2', '7001'],
        ['8.8.4.2', PORT],
        ['192.168.5.1', PORT],
        ['169.254.169.254', PORT],
      ] as const
      const words = targets.flatMap(([address, port]) => ['reach', address, port])
      const args = ['/bin/wire', ...words, 'say', 'done', 'hold']
      const pod = await start(machine, { args, image, on, template, network })
      const said = await pod.says(/done/u)
      const answers = [...said.matchAll(/^reach \S+ (\S+)/gmu)].map(([, answer]) => answer)
      // EHOSTUNREACH is what a refusal of the gateway is for a program.
      const refused = targets.slice(1).map(() => 'EHOSTUNREACH')
      assert.deepEqual(answers, ['hello', ...refused], said)
      assert.match(said, /^reach 192\.168\.5\.2 hello ::ffff:192\.168\.5\.1$/mu)
      await on.spawn.kill(pod.pod)
      await pod.end()
    })

    test('a published port answers who asks the host, and is closed when its pod is gone', async () => {
      const template = await templateOf(on)
      const port = { address: '127.0.0.1', host: 8080, pod: Number(PORT), protocol: 'tcp' } as const
      const network = networkOf({ gateways: ['10.88.0.1'], ports: [port] })
      const args = ['/bin/wire', 'serve', PORT]
      const pod = await start(machine, { args, image, on, template, network })
      await pod.says(/serve ready/u)
      const [host] = children
      assert.ok(host)
      const [enter = '', ...words] = [...inside(host)]
      const ask = (): string =>
        execFileSync(enter, [...words, machine.place('wire-out'), 'reach', '127.0.0.1', '8080'], {
          encoding: 'utf8',
        })
      // The pod sees its gateway, whoever asks.
      for (let number = 0; number < 20; number += 1) {
        assert.equal(ask(), 'reach 127.0.0.1 hello ::ffff:10.88.0.1\n')
      }
      await on.spawn.kill(pod.pod)
      await pod.end()
      while (!ask().includes('ECONNREFUSED')) await pause(LOOK_MS)
    })
  })
}
