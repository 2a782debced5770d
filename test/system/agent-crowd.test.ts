/**
 * kill -9 of the agent under a crowd of pods of all levels that it can launch: none stops, no line of a log is lost or doubled,
 * what ends meanwhile is told by the next agent, and published ports lead where they led. CASEMATE_TEST_CROWD says how many they are.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import process from 'node:process'
import { after, before, suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { request } from 'undici'
import { member } from '../agent/harness.ts'
import { missing } from '../peers/images-programs.ts'
import { type CrashHost, openCrashHost } from './crash-host.ts'
import { whyNoContainers, whyNot } from './harness.ts'

const skip = whyNot() ?? whyNoContainers() ?? missing('docker-registry')
/** Pods in all. */
const CROWD = Number(process.env['CASEMATE_TEST_CROWD'] ?? 10)
const MACHINES = Math.ceil(CROWD / 12)
/** That end meanwhile, and as many that serve; all others count. */
const ENDING = Math.ceil(CROWD / 6)
const AT_ONCE = 4
const PORT = 28_300
const LOOK_MS = 20
const CODE = 7

type Tenant = 'acme' | 'plain'

interface Pod {
  readonly id: string
  readonly tenant: Tenant
  /** Of the host, or null. */
  readonly port: number | null
}

/** Numbers, one a line, for ever. */
const counting = (seconds: string): string =>
  `i=0; while :; do echo $i; i=$((i+1)); sleep ${seconds}; done`

suite('system/agent killed under many pods', { skip }, () => {
  let host: CrashHost
  let nextPort = PORT

  before(async () => {
    host = await openCrashHost(['plain'], [`${PORT}-${PORT + 99}`])
  })
  after(async () => {
    await host.close()
  })

  async function launch(tenant: Tenant, script: string, port: number | null): Promise<Pod> {
    const wanted = {
      image: host.image,
      args: ['/bin/sh', '-c', script],
      ...(tenant === 'acme' ? {} : { isolation: 'container' }),
      ...(port === null ? {} : { network: 'default', publish: [`${port}:80`] }),
    }
    const pod = await host.call('POST', `/v1/tenants/${tenant}/pods`, wanted, randomUUID())
    assert.equal(member(pod, 'state'), 'running', JSON.stringify(pod))
    return { id: String(member(pod, 'id')), tenant, port }
  }

  async function launchAll(
    count: number,
    tenant: Tenant,
    script: string,
    isPublished = false,
  ): Promise<readonly Pod[]> {
    const pods: Pod[] = []
    while (pods.length < count) {
      const wave = Array.from({ length: Math.min(AT_ONCE, count - pods.length) }, () => {
        const port = isPublished ? nextPort : null
        nextPort += isPublished ? 1 : 0
        return launch(tenant, script, port)
      })
      // oxlint-disable-next-line no-await-in-loop -- no more than a few at a time
      pods.push(...(await Promise.all(wave)))
    }
    return pods
  }

  const podOf = ({ tenant, id }: Pod): Promise<unknown> =>
    host.call('GET', `/v1/tenants/${tenant}/pods/${id}`)

  /** What the app of a server answers, as soon as it listens. */
  async function served({ port }: Pod): Promise<string> {
    for (;;) {
      try {
        // oxlint-disable-next-line no-await-in-loop -- until it listens
        const answer = await request(`http://127.0.0.1:${port ?? 0}/etc/name`)
        // oxlint-disable-next-line no-await-in-loop
        return await answer.body.text()
      } catch {
        await pause(LOOK_MS) // oxlint-disable-line no-await-in-loop
      }
    }
  }

  /** Calls, again and again, the app that ends with its first caller, until it has ended. */
  async function callUntilItEnds({ id, port }: Pod): Promise<void> {
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop
      const found = (await host.spawn.list()).find(({ pod }) => pod === id)
      assert.ok(found, `spawn no longer knows ${id}`)
      if (found.state === 'exited') return
      const caller = connect(port ?? 0, '127.0.0.1')
        .end()
        .resume()
      caller.on('error', () => undefined)
      // oxlint-disable-next-line no-await-in-loop
      await once(caller, 'close')
      await pause(LOOK_MS) // oxlint-disable-line no-await-in-loop
    }
  }

  /** Its numbers until now, from 0, each once. */
  async function numbersOf({ tenant, id }: Pod): Promise<number> {
    const lines = (await host.log(tenant, id)).split('\n').slice(0, -1)
    assert.deepEqual(
      lines,
      lines.map((_line, number) => String(number)),
    )
    return lines.length
  }

  async function hasCountedOn(pod: Pod, from: number): Promise<void> {
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop
      const count = await numbersOf(pod)
      if (count > from) return
      await pause(LOOK_MS) // oxlint-disable-line no-await-in-loop
    }
  }

  test('loses no pod, no line, no status and no port', async () => {
    const machines = await launchAll(MACHINES, 'acme', counting('1'))
    const counters = await launchAll(CROWD - MACHINES - 2 * ENDING, 'plain', counting('0.2'))
    const ends = `nc -l -p 80 < /dev/null; exit ${CODE}`
    const ending = await launchAll(ENDING, 'plain', ends, true)
    const serves = 'mkdir /etc; echo here > /etc/name; exec httpd -f -p 80 -h /'
    const serving = await launchAll(ENDING, 'plain', serves, true)
    const running = [...machines, ...counters, ...serving]
    const atFirst = await host.spawn.list()
    const pids = new Map(atFirst.map(({ pod, pid }) => [pod, pid]))
    const counts = await Promise.all([...machines, ...counters].map(numbersOf))

    await host.kill()
    // Nobody is there to see them end, and ports need no agent.
    await Promise.all(ending.map(callUntilItEnds))
    for (const pod of serving) assert.equal(await served(pod), 'here\n')

    await host.agent()
    for (const pod of running) {
      assert.equal(member(await podOf(pod), 'state'), 'running', pod.id)
    }
    const list = await host.spawn.list()
    for (const { id } of running) {
      assert.equal(list.find(({ pod }) => pod === id)?.pid, pids.get(id), id)
    }
    for (const { id, tenant } of ending) {
      const told = await host.call('GET', `/v1/tenants/${tenant}/pods/${id}/wait?timeout_s=600`)
      assert.equal(member(told, 'exit', 'value'), CODE, JSON.stringify(told))
    }
    for (const pod of serving) assert.equal(await served(pod), 'here\n')
    for (const [at, pod] of [...machines, ...counters].entries()) {
      await hasCountedOn(pod, counts[at] ?? 0)
    }
  })
})
