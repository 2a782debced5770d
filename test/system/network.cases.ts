/**
 * Networks of real pods: who reaches whom by TCP, what one gets that says it is somebody else, and what is left of a
 * card. What is reached by frames that no kernel would send is in native/spawn/tests/spawn/network.rs.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { after, before, suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { PodNetwork } from '../../policy/nouns/network.ts'
import { networkOf } from '../native/networks.ts'
import { archive, directory, file } from '../native/workers/rootfs/tar-writer.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { buildDisk, compile, type DiskFile } from './images.ts'
import { type Running, start, type Wish } from './launch.ts'

const LOOK_MS = 20
const PORT = '7000'

/** The pod with this number on a tenant's network; every tenant has the same addresses here. */
export const at = (number: number, changes: Partial<PodNetwork> = {}): PodNetwork =>
  networkOf({
    addresses: [`10.88.0.${number}/24`, `fd58::${number}/64`],
    mac: `02:0a:58:00:00:0${number}`,
    ...changes,
  })

/** IPv4 addresses that this machine answers to. */
const hostAddresses = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((all) =>
    (all ?? []).filter(({ family }) => family === 'IPv4').map(({ address }) => address),
  )

/** Interfaces in spawn's network namespace whose names begin so. */
export function interfaces({ program }: SpawnHost, beginning: string): number {
  const inside = [`--net=/proc/${program.pid}/ns/net`, 'ip', '-o', 'link', 'show']
  const lines = execFileSync('nsenter', inside, { encoding: 'utf8' }).trim().split('\n')
  return lines.filter((line) => line.split(' ')[1]?.startsWith(beginning) === true).length
}

export function networkCases(machine: Machine): void {
  const { spawn, level } = machine
  /** At level container nobody has a privilege over the pod's own network, whatever its capabilities are. */
  const isVm = level === 'vm'
  let image: DiskFile

  const launch = (wish: Partial<Wish>, ...words: readonly string[]): Promise<Running> =>
    start(machine, { args: ['/bin/wire', ...words], image, ...wish })
  async function kill(...pods: readonly Running[]): Promise<void> {
    for (const { pod } of pods) await spawn.kill(pod)
    await Promise.all(pods.map((pod) => pod.end()))
  }
  const card = async ({ pod }: Running): Promise<Readonly<Record<string, number>>> =>
    (await spawn.metrics(pod)).devices['net'] ?? {}
  /** Counters of what a guest sent and should not have. */
  async function dropped(pod: Running): Promise<readonly number[]> {
    const found = await card(pod)
    const names = ['malformed', 'mac', 'address', 'protocol']
    return names.map((name) => found[`dropped_${name}`] ?? -1)
  }

  suite('system/network', { concurrency: 1 }, () => {
    before(async () => {
      compile('guest/wire', machine.place('wire'))
      const program = file('bin/wire', readFileSync(machine.place('wire')), { mode: 0o755 })
      image = await buildDisk(machine.place('wire.image'), archive(directory('bin'), program))
    })

    suite('with a server of the tenant, and one of another', () => {
      let server: Running
      let foreign: Running
      before(async () => {
        const words = ['card', 'serve', PORT]
        server = await launch({ network: at(2) }, ...words)
        foreign = await launch({ network: at(4), tenant: 'other' }, ...words)
        await Promise.all([server.says(/serve ready/u), foreign.says(/serve ready/u)])
      })
      after(() => kill(server, foreign))

      test('pods of one tenant talk by TCP over IPv4 and IPv6', async () => {
        const words = ['reach', '10.88.0.2', PORT, 'reach', 'fd58::2', PORT, 'say', 'done', 'hold']
        const pod = await launch({ network: at(3) }, ...words)
        const said = await pod.says(/done/u)
        assert.match(said, /^reach 10\.88\.0\.2 hello ::ffff:10\.88\.0\.3$/mu)
        assert.match(said, /^reach fd58::2 hello fd58::3$/mu)
        assert.match(await server.says(/served fd58::3/u), /^card 02:0a:58:00:00:02 1500$/mu)
        if (isVm) assert.deepEqual(await dropped(pod), [0, 0, 0, 0], 'a guest that says who it is')
        await kill(pod)
      })

      test('another tenant, the host, and addresses of metadata are not reached, whatever routes a guest has', async () => {
        const listener = createServer((socket) => socket.end('the host\n'))
        let reached = 0
        listener.on('connection', () => void (reached += 1))
        listener.listen(0, '0.0.0.0')
        await once(listener, 'listening')
        const { port } = listener.address() as AddressInfo
        const own = hostAddresses().filter((address) => !address.startsWith('127.'))
        const targets = ['169.254.169.254', ...own.slice(0, 1)]
        const reach = (to: readonly string[], on: string): readonly string[] =>
          to.flatMap((address) => ['reach', address, on])
        const words = [
          ...reach(targets, String(port)),
          'onlink',
          ...reach(targets, String(port)),
          ...reach(['10.88.0.4', 'fd58::4'], PORT),
        ]
        const pod = await launch(
          { network: at(3), capabilities: ['CAP_NET_ADMIN'] },
          ...words,
          'say',
          'done',
          'hold',
        )
        const said = await pod.says(/done/u)
        const answers = [...said.matchAll(/^reach (\S+) (.*)$/gmu)].map(([, to, what]) => [
          to,
          what,
        ])
        const each = (what: string) => targets.map((to) => [to, what])
        assert.match(said, isVm ? /^onlink ok$/mu : /^onlink EPERM$/mu)
        assert.deepEqual(answers, [
          ...each('ENETUNREACH'),
          ...each(isVm ? 'EHOSTUNREACH' : 'ENETUNREACH'),
          ['10.88.0.4', 'EHOSTUNREACH'],
          ['fd58::4', 'EHOSTUNREACH'],
        ])
        assert.equal(reached, 0)
        listener.close()
        await kill(pod)
      })

      test('frames of somebody else are dropped and counted, or cannot be sent', async () => {
        const words = ['spoof', 'say', 'done', 'hold']
        const pod = await launch({ network: at(3), capabilities: ['CAP_NET_RAW'] }, ...words)
        if (!isVm) {
          assert.match(await pod.says(/done/u), /^spoof EPERM$/mu)
          return kill(pod)
        }
        assert.match(await pod.says(/done/u), /^spoof ok$/mu)
        let counted: readonly number[] = []
        while (counted.reduce((sum, count) => sum + count, 0) < 3) {
          await pause(LOOK_MS)
          counted = await dropped(pod)
        }
        assert.deepEqual(counted, [0, 1, 2, 0])
        return kill(pod)
      })

      test('a card is gone with its VMM or monitor, and was never among the host’s interfaces', async () => {
        const kind = isVm ? 'cmt' : 'cmv'
        const others = interfaces(machine, kind)
        const pod = await launch({ network: at(3) }, 'say', 'up', 'hold')
        await pod.says(/up/u)
        assert.equal(interfaces(machine, kind), others + 1)
        process.kill(pod.pid, 'SIGKILL')
        assert.equal((await pod.end()).exit.cause, 'VMM_SIGNAL')
        while (interfaces(machine, kind) > others) await pause(LOOK_MS)
        assert.equal(interfaces(machine, kind), others)
        const namespace = (of: string): string => readlinkSync(`/proc/${of}/ns/net`)
        assert.notEqual(namespace(String(machine.program.pid)), namespace('self'))
        const named = Object.keys(networkInterfaces()).filter((name) => name.startsWith('cm'))
        assert.deepEqual(named, [])
      })
    })

    test('a stream comes as it was sent', async (t) => {
      const mib = 1
      const sink = await launch({ network: at(2) }, 'sink', PORT)
      await sink.says(/sink ready/u)
      const words = ['pour', '10.88.0.2', PORT, String(mib), 'hold']
      const source = await launch({ network: at(3) }, ...words)
      const [, ms = '0'] = /^poured (\d+)$/mu.exec(await source.says(/^poured.*\n/mu)) ?? []
      assert.match(
        await sink.says(/sank .*\n/u),
        new RegExp(`sank ${mib << 20} as they were sent`, 'u'),
      )
      if (!isVm) return kill(sink, source)
      const sent = await card(source)
      const [frames = 0, bytes = 0] = [sent['requests'], sent['bytes_from_guest']]
      // Segments that the guest leaves to the host are longer than packets of 1,514 bytes; how long, is TCP's affair.
      t.diagnostic(`${mib} MiB in ${ms} ms; a frame had ${Math.round(bytes / frames)} bytes`)
      assert.ok(bytes > mib << 20)
      return kill(sink, source)
    })

    test('bridges are gone after their last pods', async () => {
      while (interfaces(machine, 'cm') > 0) await pause(LOOK_MS)
    })
  })
}
