/**
 * Networks of containers, as far as they are made otherwise than those of machines: who has a privilege over them, what
 * a monitor that was taken over can send, and what is left of them on the host.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn as startProcess } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { archive, directory, file } from '../native/workers/rootfs/tar-writer.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { buildDisk, compile, type DiskFile } from './images.ts'
import {
  type Loose,
  papers,
  prepare,
  type Running,
  refusal,
  run,
  sh,
  start,
  type Wish,
} from './launch.ts'
import { at, interfaces } from './network.cases.ts'
import { spawnOf } from './restart.cases.ts'

const LOOK_MS = 10
const PORT = '7000'

const networkNamespace = (pid: number): string => `--net=/proc/${pid}/ns/net`

/** All rules where pods' networks are. */
const rules = (pid: number): string =>
  execFileSync('nsenter', [networkNamespace(pid), 'nft', 'list', 'ruleset'], { encoding: 'utf8' })

export function containerNetworkCases(machine: Machine): void {
  let image: DiskFile
  /** With no pods but of these tests. */
  let own: SpawnHost

  const launch = (wish: Partial<Wish>, ...words: readonly string[]): Promise<Running> =>
    start(machine, { args: ['/bin/wire', ...words], image, on: own, ...wish })
  const kill = async (on: SpawnHost, ...pods: readonly Running[]): Promise<void> => {
    for (const { pod } of pods) await on.spawn.kill(pod)
    await Promise.all(pods.map((pod) => pod.end()))
  }

  suite('system/network of a container', { concurrency: 1 }, () => {
    const children: ChildProcess[] = []
    before(async () => {
      own = await machine.another('own-network', {})
      compile('guest/wire', machine.place('wire-in'))
      const program = file('bin/wire', readFileSync(machine.place('wire-in')), { mode: 0o755 })
      image = await buildDisk(machine.place('wire-in.image'), archive(directory('bin'), program))
    })
    after(() => {
      for (const child of children) child.kill('SIGKILL')
    })

    test('what a monitor that was taken over sends as somebody else reaches nobody', async () => {
      const victim = await launch({ network: at(2) }, 'say', 'up', 'hold')
      const stolen = await launch({ network: at(3) }, 'say', 'up', 'hold')
      await Promise.all([victim.says(/up/u), stolen.says(/up/u)])
      // Root of the host in the pod's network, with every privilege over it: what nobody inside has.
      const wire = machine.place('wire-in')
      const ear = startProcess('nsenter', [networkNamespace(victim.pid), wire, 'hear'])
      children.push(ear)
      let heard = ''
      ear.stdout.on('data', (bytes: Buffer) => void (heard += bytes.toString()))
      while (!heard.includes('ready')) await once(ear.stdout, 'data')
      const words = ['spoof', 'honest', '10.88.0.3']
      const said = execFileSync('nsenter', [networkNamespace(stolen.pid), wire, ...words])
      assert.equal(said.toString(), 'spoof ok\n')
      // Frames keep their order: what was before this one and did not come does not come any more.
      while (!heard.includes('of arp 10.88.0.3')) await once(ear.stdout, 'data')
      assert.deepEqual(heard.trim().split('\n'), ['hear ready', 'heard 02:03 of arp 10.88.0.3'])
      await kill(own, victim, stolen)
    })

    test('nobody inside has a privilege over it, whatever capabilities the app has', async () => {
      const script = `ip link set eth0 down; ip addr add 10.88.0.9/24 dev eth0; ip link add x type dummy
        ip route add default via 10.88.0.1; echo 1 > /proc/sys/net/ipv4/ip_forward; ip addr show dev eth0`
      const capabilities = ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN'] as const
      const { stdout, stderr } = await run(machine, {
        args: sh(script),
        network: at(3),
        on: own,
        capabilities,
      })
      assert.equal(stderr.match(/not permitted/gu)?.length, 4, stderr)
      assert.match(stderr, /ip_forward: Read-only file system/u)
      assert.match(stdout, /UP,LOWER_UP.*mtu 1500/u)
      assert.deepEqual(
        [...stdout.matchAll(/inet6? (\S+)/gu)].map(([, address]) => address),
        ['10.88.0.3/24', 'fd58::3/64', 'fe80::a:58ff:fe00:3/64'],
      )
    })

    test('makes no namespaces in which it would have one, and hears nothing of the host’s devices', async () => {
      // A plan without a profile, as a stolen agent could write it; CAP_SYS_ADMIN, which a profile lets do more.
      const without = (spec: Loose): void => {
        ;(Object(spec['apps'])[0] as Loose)['seccomp'] = null
      }
      const wish = { args: ['/bin/wire', 'below'], image, on: own, network: at(3) }
      for (const capabilities of [[], ['CAP_SYS_ADMIN']] as const) {
        const { stdout } = await run(machine, { ...wish, capabilities }, without)
        const net = capabilities.length === 0 ? 'EPERM' : 'ENOSPC'
        assert.equal(stdout, `route ok\nevents EPERM\nuser ENOSPC\nnet ${net}\n`)
      }
    })

    test('ports below 1024 and ping are for pods whose app may have the capability', async () => {
      const words = ['serve', '80', 'say', 'x', 'hold'] as const
      const serve = async (capabilities: NonNullable<Wish['capabilities']>): Promise<string> => {
        const pod = await launch({ network: at(3), capabilities }, ...words)
        const said = await pod.says(/^(?:serve ready|x)$/mu)
        await kill(own, pod)
        return said.split('\n')[0] ?? ''
      }
      assert.equal(await serve(['CAP_NET_BIND_SERVICE']), 'serve ready')
      assert.equal(await serve([]), 'serve EACCES')
      const ping = async (capabilities: NonNullable<Wish['capabilities']>): Promise<string> =>
        (await (await launch({ network: at(3), capabilities }, 'ping', '127.0.0.1')).end()).stdout
      assert.equal(await ping(['CAP_NET_RAW']), 'ping answer 0\n')
      assert.equal(await ping([]), 'ping EACCES\n')
    })

    test('has the names that it was given, in files of its own', async () => {
      const names = {
        nameservers: ['10.88.0.53'],
        search: ['example.org'],
        options: ['ndots:2'],
        hosts: [{ address: '10.88.0.4', name: 'db' }],
      }
      const network = at(3, { names })
      const { stdout } = await run(machine, {
        args: sh('cat /etc/resolv.conf /etc/hosts'),
        network,
        on: own,
      })
      assert.equal(
        stdout,
        'nameserver 10.88.0.53\nsearch example.org\noptions ndots:2\n127.0.0.1\tlocalhost\n' +
          '::1\tlocalhost ip6-localhost ip6-loopback\n10.88.0.3\tweb-1\nfd58::3\tweb-1\n10.88.0.4\tdb\n',
      )
    })

    test('goes on while spawn is restarted, and is gone with its pod under the next one', async () => {
      const keep = ['/bin/sh', '-c', 'exec "$0" --keep "$@"']
      const on = await machine.another('kept-network', {}, keep)
      const server = await launch({ network: at(2), on }, 'serve', PORT)
      await server.says(/serve ready/u)
      const reach = async (): Promise<string> => {
        const pod = await launch({ network: at(3), on }, 'reach', '10.88.0.2', PORT)
        return (await pod.end()).stdout
      }
      const hello = 'reach 10.88.0.2 hello ::ffff:10.88.0.3\n'
      assert.equal(await reach(), hello)
      const old = spawnOf(on)
      process.kill(old, 'SIGKILL')
      assert.equal((await on.spawn.list()).find(({ pod }) => pod === server.pod)?.state, 'running')
      assert.notEqual(spawnOf(on), old)
      assert.equal(await reach(), hello)
      await kill(on, server)
      const next = { ...on, program: { ...on.program, pid: spawnOf(on) } }
      while (interfaces(next, 'cmv') > 0) await pause(LOOK_MS)
      while (rules(spawnOf(on)).includes('"cmv')) await pause(LOOK_MS)
      await on.program.end()
    })

    test('nothing is left of one whose launch failed', async () => {
      const on = await machine.another('failing', {})
      const taken = createServer().listen(0, '127.0.0.1')
      await once(taken, 'listening')
      const { port: host } = taken.address() as AddressInfo
      const ports = [{ address: '127.0.0.1', host, pod: 80, protocol: 'tcp' }] as const
      const network = at(3, { gateways: ['10.88.0.1'], ports })
      const first = await prepare(machine, { args: ['/bin/wire'], image, network, on })
      assert.equal(await refusal(first, await papers(machine, first)), 'PORT_TAKEN')
      taken.close()
      // This one the monitor refuses, after it had its card.
      const bent = { ...image, path: machine.place('bent-wire') }
      copyFileSync(image.path, bent.path)
      writeFileSync(bent.path, Buffer.from([0x55]), { flag: 'r+' })
      const ended = await run(machine, { args: ['/bin/wire'], image: bent, network: at(3), on })
      assert.equal(ended.exit.cause, 'VERITY')
      while (interfaces(on, 'cmv') > 0) await pause(LOOK_MS)
      while (/"cmv|10\.88\.0/u.test(rules(on.program.pid))) await pause(LOOK_MS)
      await on.program.end()
    })
  })
}
