/** `casemate up` with its real processes: who ends, who is started again, who may speak to whom. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { generateSigningKey } from '../../agent/images/index.ts'
import { NETWORK_RATES, podNetwork } from '../../policy/index.ts'
import { afterwards } from '../audit/harness.ts'
import { networkOf } from '../native/networks.ts'
import { missing, startDockerRegistry } from '../peers/images-programs.ts'
import { WAITING } from './crash-host.ts'
import { whyNoContainers, whyNot } from './harness.ts'
import { pushSigned, ruleOf } from './signed-image.ts'
import { startUp, stateDirectory } from './up-host.ts'

/** Runs a command under a real terminal. */
const TERMINAL = path.join(import.meta.dirname, '../agent/cli/exec-terminal.py')

const OPERATOR = 64_021
const STRANGER = 64_022
const why = whyNot()

const CONNECT = `require('node:net').connect(process.argv[1])
  .on('error', (error) => console.log(error.code))
  .on('connect', () => { console.log('open'); process.exit() })`

suite('system/up without pods', { skip: why ?? false }, () => {
  // Without software KVM being allowed no template is built here.
  test('lets operators in by their uid, keeps what they set, and starts again what ends', async (t) => {
    const state = stateDirectory(t)
    const host = startUp(t, state, '--https-port', '0', '--operator', String(OPERATOR))
    await host.heard(/casemate is up/u)

    const created = await host.as(OPERATOR, 'CASEMATE', 'tenant', 'create', 'acme')
    assert.equal(created.code, 0, created.stderr)
    const refused = await host.as(STRANGER, 'CASEMATE', 'tenant', 'list')
    assert.equal(refused.code, 6, refused.stdout)
    assert.match(refused.stderr, /User id 64022 is no operator/u)
    for (const uid of [OPERATOR, STRANGER]) {
      for (const place of ['spawn/spawn.sock', 'signer/signer.sock']) {
        const tried = await host.as(uid, 'NODE', '-e', CONNECT, path.join(host.run, place))
        assert.equal(tried.stdout, 'EACCES\n', `${uid} and ${place}`)
      }
    }

    const [agent, spawn, signer] = [host.pidOf('agent'), host.pidOf('spawn'), host.pidOf('signer')]
    const config = path.join(state, 'conf/agent.json')
    const edited = { ...JSON.parse(readFileSync(config, 'utf8')), requests_per_minute: 777 }
    writeFileSync(config, JSON.stringify(edited, null, 2))
    process.kill(agent, 'SIGKILL')
    process.kill(signer, 'SIGKILL')
    await host.heard(/agent ready again/u)
    await host.heard(/signer ready again/u)
    assert.equal(host.pidOf('spawn'), spawn)
    assert.notEqual(host.pidOf('agent'), agent)
    const listed = await host.as(OPERATOR, 'CASEMATE', 'tenant', 'list')
    assert.match(listed.stdout, /^acme /mu, listed.stderr)

    // What cannot start is not given up, and says why; corrected, it serves.
    writeFileSync(config, JSON.stringify({ ...edited, requests_per_minute: 0 }))
    process.kill(host.pidOf('agent'), 'SIGKILL')
    await host.heard(/casemate-agent did not start.*requests_per_minute.*starting it again/su)
    assert.equal(host.pidOf('spawn'), spawn)
    writeFileSync(config, JSON.stringify(edited))
    await host.heard(/(?:agent ready again.*){2}/su)
    assert.equal((await host.as(OPERATOR, 'CASEMATE', 'tenant', 'list')).code, 0)
    assert.equal(await host.end(), 0)

    const next = startUp(t, state)
    await next.heard(/casemate is up/u)
    assert.equal(JSON.parse(readFileSync(config, 'utf8')).requests_per_minute, 777)
    assert.equal((await next.as(OPERATOR, 'CASEMATE', 'tenant', 'list')).code, 0)
    // Once it is started anew; again and again it is given up, and everything ends with it.
    for (let times = 1; times <= 6; times += 1) {
      const spawned = next.pidOf('spawn')
      process.kill(spawned, 'SIGKILL')
      if (times <= 5) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        await next.heard(
          new RegExp(`(?:ended by itself \\(SIGKILL\\); starting.*){${times}}`, 'su'),
        )
        // oxlint-disable-next-line no-await-in-loop
        assert.equal((await next.as(OPERATOR, 'CASEMATE', 'doctor')).stdout.includes('spawn'), true)
      }
    }
    assert.equal(await next.ended, 1)
    assert.match(next.said(), /casemate-spawn ended for good/u)

    writeFileSync(config, JSON.stringify({ ...edited, requests_per_minute: 0 }))
    const wrong = startUp(t, state)
    assert.equal(await wrong.ended, 1)
    assert.match(wrong.said(), /casemate-agent did not start.*requests_per_minute/su)
  })
})

const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined

/** A registry with an image that waits, the rule that its signature satisfies, and up's flags for it. */
async function withImage(t: TestContext) {
  const state = stateDirectory(t)
  const registry = await startDockerRegistry(state)
  afterwards(t, () => registry.stop())
  const keys = generateSigningKey()
  const directory = path.join(state, 'cli')
  const image = await pushSigned({ host: registry.host, directory, keys }, WAITING)
  const rule = path.join(state, 'rule.json')
  writeFileSync(rule, JSON.stringify(ruleOf(registry.host, keys)))
  const flags = ['--https-port', '0', '--insecure-registry', registry.host]
  return { state, image, rule, flags }
}

suite('system/up with a pod', { skip: why ?? missing('docker-registry') }, () => {
  test('a pod outlives agent and spawn, and ends on record when up is stopped', async (t) => {
    const { state, image, rule, flags } = await withImage(t)
    const host = startUp(t, state, '--allow-software-kvm', ...flags)
    await host.heard(/casemate is up/u)
    const casemate = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await host.as(0, 'CASEMATE', '-o', 'json', ...args)
      assert.equal(code, 0, stderr + stdout)
      return stdout
    }
    await casemate('tenant', 'create', 'acme', '--image-rule', rule)
    const launched: unknown = JSON.parse(
      await casemate('-t', 'acme', 'run', '-d', '--network', 'default', image),
    )
    const pod = String(member(launched, 'id'))

    process.kill(host.pidOf('agent'), 'SIGKILL')
    await host.heard(/agent ready again/u)
    process.kill(host.pidOf('spawn'), 'SIGKILL')
    await host.heard(/casemate-spawn ended by itself \(SIGKILL\)/u)
    const stats: unknown = JSON.parse(await casemate('-t', 'acme', 'stats', pod))
    assert.notEqual(member(stats, 'usage'), null)
    const running: unknown = JSON.parse(await casemate('-t', 'acme', 'inspect', pod))
    assert.equal(member(running, 'state'), 'running')
    assert.deepEqual(
      member(member(running, 'facts'), 'network'),
      networkOf({ ...podNetwork(1, 2), rates: NETWORK_RATES }),
    )
    assert.equal(await host.end(), 0)

    const log = path.join(state, 'agent/audit')
    const next = startUp(t, state, '--https-port', '0')
    await next.heard(/casemate is up/u)
    const shown = await next.as(0, 'CASEMATE', '-o', 'json', 'audit', 'show')
    const records: unknown = member(JSON.parse(shown.stdout), 'records')
    assert.ok(Array.isArray(records), `${log}: ${shown.stdout}`)
    const all = records.map((entry: unknown) => member(entry, 'record'))
    const types = all.map((record) => String(member(record, 'type')))
    const stop = all.find((record) => member(record, 'type') === 'launch.stop_requested')
    assert.equal(member(member(stop, 'actor'), 'sub'), 'agent')
    const exited = all.filter((record) => member(record, 'type') === 'launch.exited')
    assert.deepEqual(
      exited.map((record) => [member(record, 'launch_id'), member(record, 'reason')]),
      [[pod, 'stop']],
      JSON.stringify(exited),
    )
    assert.ok(types.indexOf('launch.exited') < types.indexOf('agent.stop'))
    t.diagnostic(JSON.stringify(member(exited[0], 'exit')))
  })
})

suite('system/up with a container', {
  skip: whyNoContainers() ?? missing('docker-registry'),
}, () => {
  test('a trusted tenant runs one once root’s level file names it; it outlives agent and spawn, and all of it is on record', async (t) => {
    const { state, image, rule, flags } = await withImage(t)
    const first = startUp(t, state, ...flags)
    await first.heard(/casemate is up/u)
    const words = ['tenant', 'create', 'acme', '--trust', 'trusted', '--image-rule', rule]
    assert.equal((await first.as(0, 'CASEMATE', ...words)).code, 0)
    const asked = ['-t', 'acme', 'run', '--isolation', 'container'] as const
    const refused = await first.as(0, 'CASEMATE', ...asked, '-d', image)
    assert.match(refused.stderr, /level file does not name[\s\S]*ISOLATION_NOT_PERMITTED/u)
    assert.equal(await first.end(), 0)

    const config = path.join(state, 'conf/spawn.json')
    const edited = { ...JSON.parse(readFileSync(config, 'utf8')), levels: { acme: ['container'] } }
    writeFileSync(config, JSON.stringify(edited))
    const host = startUp(t, state, ...flags)
    await host.heard(/casemate is up/u)
    const casemate = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await host.as(0, 'CASEMATE', '-o', 'json', ...args)
      assert.equal(code, 0, stderr + stdout)
      return stdout
    }
    const inspect = async (pod: string): Promise<unknown> =>
      JSON.parse(await casemate('-t', 'acme', 'inspect', pod))
    const card = ['/bin/sh', '-c', 'cat /sys/class/net/eth0/address'] as const
    const wired = ['--network', 'default', image, '--', ...card] as const
    const networked = await host.as(0, 'CASEMATE', ...asked, ...wired)
    assert.match(networked.stdout, /^02:/u, networked.stderr)
    const once = await host.as(
      0,
      'CASEMATE',
      ...asked,
      image,
      '--',
      '/bin/sh',
      '-c',
      'echo hello; exit 3',
    )
    assert.deepEqual([once.code, once.stdout], [3, 'hello\n'], once.stderr)

    const feed = ['sh', '-c', 'echo fed | "$@"', 'sh', 'CASEMATE', ...asked, '-i', image] as const
    const fed = await host.as(0, ...feed, '--', '/bin/sh', '-c', 'cat; exit 4')
    assert.deepEqual([fed.code, fed.stdout], [4, 'fed\n'], fed.stderr)

    const launched: unknown = JSON.parse(await casemate(...asked, '-d', image))
    const pod = String(member(launched, 'id'))
    process.kill(host.pidOf('agent'), 'SIGKILL')
    await host.heard(/agent ready again/u)
    process.kill(host.pidOf('spawn'), 'SIGKILL')
    await host.heard(/casemate-spawn ended by itself \(SIGKILL\)/u)
    const running = await inspect(pod)
    assert.deepEqual(
      ['state', 'isolation'].map((name) => member(running, name)),
      ['running', 'container'],
    )
    assert.equal(member(member(running, 'facts'), 'image_hashed'), 'when attached')
    assert.match((await host.as(0, 'CASEMATE', '-t', 'acme', 'ps')).stdout, /running +container/u)
    assert.match((await host.as(0, 'CASEMATE', 'doctor')).stdout, /containers +ok +runc version/u)
    assert.equal((await host.as(0, 'CASEMATE', '-t', 'acme', 'logs', pod)).stdout, 'before\n')
    const beside = ['exec', pod, '--', '/bin/sh', '-c', 'echo beside; exit 5'] as const
    const executed = await host.as(0, 'CASEMATE', '-t', 'acme', ...beside)
    assert.deepEqual([executed.code, executed.stdout], [5, 'beside\n'], executed.stderr)
    const made = path.join(stateDirectory(t), 'copied')
    for (const copy of [
      ['cp', import.meta.filename, `${pod}:/tmp/in.ts`],
      ['cp', `${pod}:/tmp/in.ts`, made],
    ]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const copied = await host.as(0, 'CASEMATE', '-t', 'acme', ...copy)
      assert.deepEqual([copied.code, copied.stderr], [0, ''])
    }
    assert.deepEqual(readFileSync(made), readFileSync(import.meta.filename))
    const listed = await host.as(0, 'CASEMATE', '-t', 'acme', 'top', pod)
    assert.match(listed.stdout, /^1 +root +S +\d+:\d\d\.\d\d +\d+\.\d MiB +sleep 1000$/mu)
    const steps = [{ until: '# ' }, { type: 'echo $((40+2)) | cat; tty\r' }, { until: '42' }]
    const typed = JSON.stringify([...steps, { until: '/dev/pts/' }, { type: 'exit 6\r' }])
    const shell = ['-t', 'acme', 'exec', '-it', pod, '--', '/bin/sh'] as const
    const terminal = await host.as(0, 'python3', TERMINAL, typed, 'CASEMATE', ...shell)
    assert.match(terminal.stdout, /\ncooked 6\n$/u, terminal.stdout + terminal.stderr)
    await casemate('-t', 'acme', 'pause', pod)
    await casemate('-t', 'acme', 'resume', pod)
    const stats: unknown = JSON.parse(await casemate('-t', 'acme', 'stats', pod))
    assert.ok(Number(member(member(stats, 'usage'), 'tasks')) > 2)
    await casemate('-t', 'acme', 'stop', '--timeout', '0', pod)
    assert.match(JSON.stringify(member(await inspect(pod), 'exit')), /"how":"(?:signal|vmm)"/u)

    const shown: unknown = JSON.parse(await casemate('audit', 'show'))
    const records: unknown = member(shown, 'records')
    assert.ok(Array.isArray(records))
    const own = records
      .map((entry: unknown) => member(entry, 'record'))
      .filter((record) => member(record, 'launch_id') === pod)
    assert.deepEqual(
      own.map((record) => member(record, 'type')),
      [
        'launch.requested',
        'launch.intent',
        'launch.started',
        ...Array.from({ length: 5 }, () => ['exec.intent', 'exec.ended']).flat(),
        'launch.pause_requested',
        'launch.resume_requested',
        'launch.stop_requested',
        'launch.exited',
      ],
    )
    const isolation = member(own[1], 'isolation')
    assert.deepEqual(
      ['level', 'kvm', 'image_hashed'].map((name) => member(isolation, name)),
      ['container', null, 'when attached'],
    )
    assert.equal(await host.end(), 0)
  })
})
