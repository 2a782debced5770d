/**
 * What is left of the agent while the audit log cannot be written, while the disk has no room for
 * images, and while the host has no KVM: nothing is started, and what runs can still be listed, read,
 * awaited and stopped. The file system that fills up or turns read-only is a real one of its own, and
 * the image really is signed.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import path from 'node:path'
import { text as readText } from 'node:stream/consumers'
import { suite, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { FREE_BYTES_MIN, ROOTFS_LIKELY_BYTES } from '../../agent/images/limits.ts'
import { verifyLog } from '../../audit/index.ts'
import { afterwards } from '../audit/harness.ts'
import { member, type TestAgent } from './harness.ts'
import { leaveRunning, POD, status } from './left-pod.ts'
import { DESCRIPTION } from './spawn-peer.ts'
import { records, type Stage, stage } from './stage.ts'

const PLACE = `/v1/tenants/acme/pods/${POD}`
/** The write-ahead log allocates 16 MiB, the reserve 4 MiB; the rest is for tiles. */
const AUDIT_MIB = 24
/** Of every launch here: what says that the log is away is not kept for the request sent again. */
const KEY = 'the-same'
/** The gate tries again every 5 s; this is how often it may be looked at, not how long it takes. */
const LOOKS_MAX = 1200

/**
 * Moves a folder of an agent that has ended onto a small file system of its own. False when this
 * process may not mount: then the test is skipped.
 */
function move(t: TestContext, agent: TestAgent, folder: string, mib: number): boolean {
  const away = path.join(agent.directory, 'moved')
  cpSync(folder, away, { recursive: true })
  const size = `size=${mib}m`
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'casemate-test', folder])
  if (mounted.status !== 0) {
    t.skip('may not mount a tmpfs: needs root')
    return false
  }
  afterwards(t, async () => {
    await agent.end()
    spawnSync('umount', ['-l', folder])
  })
  cpSync(away, folder, { recursive: true })
  return true
}

/** Moves the log. Gives its mount point, or null as `move` has it. */
function moveLog(t: TestContext, agent: TestAgent): string | null {
  const audit = path.join(agent.stateDir, 'audit')
  return move(t, agent, audit, AUDIT_MIB) ? audit : null
}

/** Not while a file is open for writing: the gate closes those of a log that failed, in its time. */
async function remount(directory: string, how: 'ro' | 'rw'): Promise<void> {
  let said = ''
  for (let left = LOOKS_MAX; left > 0; left -= 1) {
    const done = spawnSync('mount', ['-o', `remount,${how}`, directory], { encoding: 'utf8' })
    if (done.status === 0) return
    said = done.stderr
    await pause(50)
  }
  assert.fail(said)
}

/** Takes all the space there is. Gives the file to remove for having it back. */
function fill(directory: string): string {
  const filler = path.join(directory, 'filler')
  for (const size of [1 << 20, 4096]) {
    try {
      for (;;) writeFileSync(filler, Buffer.alloc(size), { flag: 'a' })
    } catch (error) {
      assert.equal(member(error, 'code'), 'ENOSPC')
    }
  }
  return filler
}

async function auditCheck(agent: TestAgent): Promise<unknown> {
  const { json } = await agent.operator({ path: '/v1/doctor' })
  const checks = member(json, 'checks')
  assert.ok(Array.isArray(checks))
  return checks.find((check: unknown) => member(check, 'id') === 'audit')
}

/** Looks until the doctor says of the log what is hoped for, and gives the sentence. */
async function auditBecomes(agent: TestAgent, hoped: string, words = /(?:)/u): Promise<string> {
  let check: unknown = null
  for (let left = LOOKS_MAX; left > 0; left -= 1) {
    check = await auditCheck(agent)
    const detail = String(member(check, 'detail'))
    if (member(check, 'status') === hoped && words.test(detail)) return detail
    await pause(50)
  }
  return assert.fail(`it never became ${hoped}: ${JSON.stringify(check)}`)
}

/** What spawn was asked for beyond looking, since `from` requests. */
const asked = (agent: TestAgent, from: number): readonly string[] => {
  const looks = new Set(['list', 'describe', 'adopt', 'template'])
  const all = agent.spawn.requests.slice(from).map((request) => String(request['op']))
  return all.filter((op) => !looks.has(op))
}

/** What its tenant is told of the launch that was asked for last. */
async function isNamed({ agent, token }: Stage, stageOf: string, code: string): Promise<void> {
  const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods?limit=1' })
  const [pod] = member(listed.json, 'pods') as unknown[]
  const place = `/v1/tenants/acme/pods/${String(member(pod, 'id'))}/debug`
  const found = await agent.tenant(token, { path: place })
  assert.deepEqual([member(found.json, 'stage'), member(found.json, 'code')], [stageOf, code])
  assert.doesNotMatch(found.text, /\/(?:var|tmp|run)\//u)
}

/** The launch is refused for `errno`, the operator is told where, and nothing was started. */
async function refusesLaunch(on: Stage, errno: string, directory: string): Promise<void> {
  const { agent } = on
  const before = agent.spawn.requests.length
  const reply = await on.launch('acme', KEY)
  assert.equal(reply.status, 503, reply.text)
  assert.equal(member(reply.json, 'code'), 'AUDIT_UNAVAILABLE')
  assert.equal(member(reply.json, 'facts', 'errno'), errno)
  await isNamed(on, 'RECORD', 'AUDIT_UNAVAILABLE')
  // Where the log is on the host is for the operator, and not for tenants.
  assert.ok(!reply.text.includes(directory), reply.text)
  const detail = await auditBecomes(agent, 'failed')
  assert.ok(detail.includes(errno) && detail.includes(directory), detail)
  assert.deepEqual(asked(agent, before), [])
  const made = await agent.operator({ method: 'POST', path: '/v1/tenants', body: { id: 'more' } })
  assert.equal(member(made.json, 'code'), 'AUDIT_UNAVAILABLE')
}

/** What need not be done is not done without a record. */
async function refusesPause({ agent, token }: Stage): Promise<void> {
  const before = agent.spawn.requests.length
  const call = { method: 'POST', path: `${PLACE}/pause`, body: {} } as const
  const refused = await agent.tenant(token, call)
  assert.equal(member(refused.json, 'code'), 'AUDIT_UNAVAILABLE', refused.text)
  assert.deepEqual(asked(agent, before), [])
}

/** Nothing is executed in a pod without a record either. */
async function refusesExec({ agent, token }: Stage): Promise<void> {
  const url = `wss://127.0.0.1:${agent.httpsPort}${PLACE}/exec?command=sh`
  const headers = { authorization: `Bearer ${token}` }
  const socket = new WebSocket(url, ['v5.channel.k8s.io'], { headers, rejectUnauthorized: false })
  const [, answer] = await once(socket, 'unexpected-response')
  const text = await readText(answer as IncomingMessage)
  assert.equal(member(JSON.parse(text), 'code'), 'AUDIT_UNAVAILABLE', text)
}

/** List, logs, wait and stop of the running pod. */
async function answersForPod({ agent, token }: Stage): Promise<void> {
  const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
  const pods = member(listed.json, 'pods')
  assert.ok(Array.isArray(pods), listed.text)
  const own: unknown = pods.find((pod: unknown) => member(pod, 'id') === POD)
  assert.equal(member(own, 'state'), 'running')
  assert.equal((await agent.tenant(token, { path: `${PLACE}/logs` })).status, 200)
  const waited = await agent.tenant(token, { path: `${PLACE}/wait?timeout_s=0` })
  assert.equal(member(waited.json, 'code'), 'WAIT_TIMEOUT')
  const before = agent.spawn.requests.length
  const body = { timeout_ms: 1000 }
  const stopped = await agent.tenant(token, { method: 'POST', path: `${PLACE}/stop`, body })
  assert.equal(stopped.status, 202, stopped.text)
  assert.deepEqual(asked(agent, before), ['stop'])
}

/** The pod ends, and whoever waits for it is told. */
async function tellsTheEnd({ agent, token }: Stage): Promise<void> {
  agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
  const ended = await agent.tenant(token, { path: `${PLACE}/wait?timeout_s=60` })
  assert.equal(member(ended.json, 'state'), 'exited', ended.text)
  assert.equal(member(ended.json, 'exit', 'value'), 3)
}

/** A launch comes past the record of its request, and fails at the worker that this spawn has not. */
async function launchesAgain(on: Stage): Promise<void> {
  await auditBecomes(on.agent, 'ok')
  const before = on.agent.spawn.requests.length
  const reply = await on.launch('acme', KEY)
  assert.notEqual(member(reply.json, 'code'), 'AUDIT_UNAVAILABLE')
  const worker = on.agent.spawn.requests.slice(before).find(({ op }) => op === 'worker')
  assert.equal(member(worker, 'kind'), 'rootfs', reply.text)
  // The layer is some hundred bytes; the rest is what every image is given.
  const room = Number(member(worker, 'file_bytes')) - ROOTFS_LIKELY_BYTES
  assert.ok(room > 0 && room < 4096, JSON.stringify(worker))
  const types = new Set((await records(on.agent)).map((record) => member(record, 'type')))
  assert.ok(types.has('launch.requested'))
  assert.ok(types.has('launch.failed'))
}

/** The end that could not be recorded when it happened is, before spawn may forget it. */
async function putsTheEndOnRecord({ agent }: Stage, audit: string): Promise<void> {
  const isForgotten = (): boolean =>
    agent.spawn.requests.some((request) => request['op'] === 'forget')
  for (let left = LOOKS_MAX; left > 0 && !isForgotten(); left -= 1) await pause(50)
  assert.ok(isForgotten())
  const ends = (await records(agent)).filter(
    (record) => member(record, 'type') === 'launch.exited' && member(record, 'launch_id') === POD,
  )
  assert.equal(ends.length, 1)
  await agent.end()
  const vkey = readFileSync(path.join(agent.directory, 'vkey'), 'utf8')
  assert.deepEqual((await verifyLog(audit, [vkey])).problems, [])
}

suite('agent/audit unavailable', () => {
  test('a disk that is full, then read-only, stops launches and nothing else, until it is mended', async (t) => {
    const on = await stage(t)
    const { agent } = on
    await agent.end()
    const audit = moveLog(t, agent)
    if (audit === null) return
    await leaveRunning(agent)
    await agent.again()
    await auditBecomes(agent, 'ok')
    const filler = fill(audit)
    // The write-ahead log has its space: it is the publication of this record that finds none.
    const body = { name: 'more' }
    await agent.operator({ method: 'POST', path: '/v1/tenants/acme/tokens', body })
    await auditBecomes(agent, 'failed')
    await refusesLaunch(on, 'ENOSPC', audit)
    await refusesPause(on)
    await refusesExec(on)
    await answersForPod(on)
    await tellsTheEnd(on)
    await refusesLaunch(on, 'ENOSPC', audit)
    await remount(audit, 'ro')
    await auditBecomes(agent, 'failed', /EROFS/u)
    await refusesLaunch(on, 'EROFS', audit)
    await remount(audit, 'rw')
    rmSync(filler)
    await launchesAgain(on)
    await putsTheEndOnRecord(on, audit)
  })

  test('so does a disk that is read-only when the agent starts', async (t) => {
    const on = await stage(t)
    const { agent } = on
    await agent.end()
    const audit = moveLog(t, agent)
    if (audit === null) return
    await leaveRunning(agent)
    await remount(audit, 'ro')
    await agent.again()
    await refusesLaunch(on, 'EROFS', audit)
    await refusesPause(on)
    await answersForPod(on)
    await tellsTheEnd(on)
    await remount(audit, 'rw')
    await launchesAgain(on)
    await putsTheEndOnRecord(on, audit)
  })
})

suite('agent/disk below its floor', () => {
  test('stops pulls and builds and nothing else, on record, until there is room', async (t) => {
    const on = await stage(t)
    const { agent } = on
    await agent.end()
    if (!move(t, agent, agent.stateDir, FREE_BYTES_MIN / 2 ** 20 + 64)) return
    await leaveRunning(agent)
    await agent.again()
    await auditBecomes(agent, 'ok')
    const { bavail, bsize } = statfsSync(agent.stateDir)
    const filler = path.join(agent.stateDir, 'filler')
    // Enough is left for the layer, and not for a root image.
    writeFileSync(filler, Buffer.alloc(bavail * bsize - FREE_BYTES_MIN - 8 * 2 ** 20))
    const before = agent.spawn.requests.length
    const reply = await on.launch()
    assert.deepEqual([reply.status, member(reply.json, 'code')], [507, 'IMAGE_STORAGE_FULL'])
    await isNamed(on, 'IMAGE_PULL', 'IMAGE_STORAGE_FULL')
    assert.deepEqual(asked(agent, before), [])
    const refused = (await records(agent)).find(
      (record) => member(record, 'type') === 'launch.refused',
    )
    assert.equal(member(refused, 'refusal', 'code'), 'IMAGE_STORAGE_FULL')
    writeFileSync(filler, Buffer.alloc(10 * 2 ** 20), { flag: 'a' })
    const { json } = await agent.operator({ path: '/v1/doctor' })
    assert.match(JSON.stringify(json), /below 2048 nothing is pulled or built/u)
    assert.equal((await on.launch()).status, 507)
    await answersForPod(on)
    await tellsTheEnd(on)
    rmSync(filler)
    await launchesAgain(on)
    await putsTheEndOnRecord(on, path.join(agent.stateDir, 'audit'))
  })
})

suite('agent/isolation unavailable', () => {
  const hosts = {
    'without KVM': { kvm: null, kvm_reason: '/dev/kvm cannot be opened: ENOENT' },
    'with software KVM that root did not allow': { kvm: 'software', allow_software_kvm: false },
  } as const
  for (const [name, changes] of Object.entries(hosts)) {
    test(`a host ${name} launches nothing for an untrusted tenant`, async (t) => {
      const on = await stage(t)
      const { agent } = on
      agent.spawn.answer('describe', () => ({ ...DESCRIPTION, ...changes }))
      const before = agent.spawn.requests.length
      const reply = await on.launch('acme', KEY)
      assert.equal(reply.status, 503, reply.text)
      assert.equal(member(reply.json, 'code'), 'ISOLATION_UNAVAILABLE')
      await isNamed(on, 'VMM_START', 'ISOLATION_UNAVAILABLE')
      assert.deepEqual(asked(agent, before), [])
      const refused = (await records(agent)).filter(
        (record) => member(record, 'type') === 'launch.refused',
      )
      assert.equal(refused.length, 1)
      assert.equal(member(refused[0], 'refusal', 'code'), 'ISOLATION_UNAVAILABLE')
      agent.spawn.answer('describe', () => DESCRIPTION)
      const again = await on.launch('acme', KEY)
      assert.notEqual(member(again.json, 'code'), 'ISOLATION_UNAVAILABLE')
      assert.ok(asked(agent, before).includes('worker'), again.text)
    })
  }
})
