/**
 * A host whose pods do nothing: launches get as far as a real pod stream, and the test says how each
 * ends. Store, log, signer, policy, images, workers and the agent's end of the stream are real.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { fstatSync, readSync } from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { PodExit } from '../../native/spawn-answers.ts'
import {
  type LaunchCall,
  type RunningPod,
  SpawnError,
  spawnClient,
} from '../../native/spawn-client.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { openTenants, type Tenants } from '../../tenants/index.ts'
import { afterwards, scratch } from '../audit/harness.ts'
import { LogWriter } from '../native/pod-log-writer.ts'
import { member, type Reply } from './harness.ts'
import { layOut } from './host/layout.ts'
import { runWorkerInChild } from './images/support/worker.ts'
import { DESCRIPTION } from './spawn-peer.ts'
import { records, type Stage, stage } from './stage.ts'

export const exitCode = (value: number): PodExit => ({
  how: 'code',
  value,
  guest_reported: true,
  cause: 'APP_EXIT',
  text: null,
})

/** What spawn was given to start. */
export interface Started {
  readonly pod: string
  readonly spec: Readonly<Record<string, unknown>>
  readonly record: unknown
  /** Salt and content of its app's files; null: none. */
  readonly files: Buffer | null
}

interface Vmm {
  readonly tenant: string
  exit: PodExit | null
  /** The other end of the agent's pod stream. */
  stream: Socket
}

export interface PodHost extends Stage {
  readonly started: readonly Started[]
  /** Ends the pod of that launch. */
  end(launch: string, exit: PodExit): void
  /** The VMM's end of its pod stream. */
  streamOf(launch: string): Socket
  /** Lets the pod of that launch write. */
  write(launch: string, text: string | Buffer, stream?: number, timeNs?: bigint): Promise<void>
  /** Moves the agent's clock. */
  pass(ms: number): void
  /** Makes the next launch fail at spawn, with this code and sentence. */
  refuseNext(code: string, sentence?: string): void
  /** Calls `look` until it gives something. */
  until<T>(
    what: string,
    look: () => T | null | undefined | Promise<T | null | undefined>,
  ): Promise<T>
  /** One pod of acme, as `inspect` shows it. */
  inspect(pod: string): Promise<unknown>
  /** Waits until so many launches came to spawn; the last of them. */
  launches(count: number): Promise<Started>
  post(place: string, body?: object): Promise<Reply>
  /** The agent's store, while the agent does not run. */
  store(): Tenants
}

/** Streams between two sockets of this process; the first is given away as a descriptor. */
async function streams(t: TestContext): Promise<() => Promise<{ fd: number; far: Socket }>> {
  const socket = path.join(scratch(t), 'streams')
  // Never read from here: the descriptor is the agent's.
  const server = createServer({ pauseOnConnect: true })
  server.listen(socket)
  await once(server, 'listening')
  afterwards(t, () => server.close())
  return async () => {
    const accepted = once(server, 'connection') as Promise<[Socket]>
    const far = connect(socket)
    far.on('error', () => undefined)
    const [near] = await accepted
    return { fd: Number(member(near, '_handle', 'fd')), far }
  }
}

/** All of a file that somebody else has open, from its beginning. */
function contentOf(fd: number): Buffer {
  const bytes = Buffer.alloc(fstatSync(fd).size)
  readSync(fd, bytes, 0, bytes.length, 0)
  return bytes
}

export async function podHost(t: TestContext): Promise<PodHost> {
  const open = await streams(t)
  const vmms = new Map<string, Vmm>()
  const started: Started[] = []
  const writers = new Map<string, LogWriter>()
  let skew = 0
  let refusal: SpawnError | null = null
  const begin = async (call: LaunchCall): Promise<RunningPod> => {
    const spec = JSON.parse(call.spec) as Record<string, unknown>
    const pod = String(spec['launch_id'])
    const files = call.files === undefined ? null : contentOf(call.files)
    const one = { pod, spec, record: JSON.parse(call.record) as unknown, files }
    const refused = refusal
    refusal = null
    if (refused !== null) started.push(one)
    if (refused !== null) throw refused
    const { fd, far } = await open()
    vmms.set(pod, { tenant: String(spec['tenant']), exit: null, stream: far })
    started.push(one)
    return { pid: 4711, stream: fd }
  }
  const adopt = async (pod: string): Promise<RunningPod> => {
    const vmm = vmms.get(pod)
    if (vmm === undefined || vmm.exit !== null) throw new SpawnError('POD_NOT_RUNNING', 'no')
    const { fd, far } = await open()
    vmm.stream = far
    return { pid: 4711, stream: fd }
  }
  const end = (pod: string, exit: PodExit): void => {
    const vmm = vmms.get(pod)
    assert.ok(vmm !== undefined, `${pod} was never started`)
    vmm.exit = exit
    vmm.stream.destroy()
  }
  const on = await stage(t, {
    surroundings: {
      root: layOut(t, {}),
      now: () => Date.now() + skew,
      spawn: (socket) => ({
        ...spawnClient(socket),
        worker: runWorkerInChild,
        launch: begin,
        adopt,
      }),
    },
  })
  const { spawn } = on.agent
  const podOf = (request: Record<string, unknown>): string => String(request['pod'])
  const known = (pod: string, act: () => void): Canonical => {
    if (!vmms.has(pod)) return { ok: false, code: 'POD_UNKNOWN', message: 'no such pod' }
    act()
    return { ok: true }
  }
  spawn.answer('describe', () => DESCRIPTION)
  spawn.answer('forget', (request) => known(podOf(request), () => vmms.delete(podOf(request))))
  spawn.answer('stop', (request) =>
    known(podOf(request), () => setImmediate(() => end(podOf(request), exitCode(143)))),
  )
  spawn.answer('list', () => ({
    ok: true,
    pods: [...vmms].map(([pod, { tenant, exit }]) => ({
      pod,
      tenant,
      spec: `sha256:${'a'.repeat(64)}`,
      pid: 4711,
      state: exit === null ? 'running' : 'exited',
      paused: false,
      scratch_bytes: exit === null ? 2 ** 28 : null,
      exit: exit && { ...exit },
    })),
  }))
  const until: PodHost['until'] = async (what, look) => {
    for (let left = 2400; left > 0; left -= 1) {
      // oxlint-disable-next-line no-await-in-loop -- looking again is the point
      const found = await look()
      if (found !== null && found !== undefined) return found
      // oxlint-disable-next-line no-await-in-loop
      await pause(25)
    }
    throw new Error(`never came: ${what}`)
  }
  return {
    ...on,
    started,
    end,
    until,
    streamOf: (pod) => {
      const stream = vmms.get(pod)?.stream
      assert.ok(stream !== undefined)
      return stream
    },
    write: async (launch, text, stream, timeNs) => {
      let writer = writers.get(launch)
      if (writer === undefined) {
        const file = await openFile(path.join(on.agent.stateDir, 'pods', launch, 'log'), 'r+')
        afterwards(t, () => file.close())
        writer = new LogWriter(file, (await file.stat()).size)
        writers.set(launch, writer)
      }
      await writer.write(text, stream, timeNs)
    },
    pass: (ms) => {
      skew += ms
    },
    refuseNext: (code, sentence = 'as the test has it') => {
      refusal = new SpawnError(code, sentence)
    },
    inspect: async (pod) =>
      (await on.agent.operator({ path: `/v1/tenants/acme/pods/${pod}` })).json,
    launches: (count) => until(`launch ${count}`, () => started[count - 1]),
    store: () =>
      openTenants({
        stateDir: on.agent.stateDir,
        issuer: 'https://casemate.invalid/test-host',
        audience: 'casemate:test-host',
        now: () => Date.now() + skew,
      }),
    post: (place, body = {}) =>
      on.agent.tenant(on.token, { method: 'POST', path: `/v1/tenants/acme/pods/${place}`, body }),
  }
}

/** Launches the image for acme, and gives the pod's id. */
export async function run(host: PodHost, more: object = {}): Promise<string> {
  const reply = await host.launch('acme', undefined, more)
  assert.equal(reply.status, 201, reply.text)
  return String(member(reply.json, 'id'))
}

/** Waits until the pod is in that state. */
export const becomes = (host: PodHost, pod: string, state: string): Promise<unknown> =>
  host.until(`${pod} ${state}`, async () => {
    const found = await host.inspect(pod)
    return member(found, 'state') === state ? found : null
  })

/** All records of a type, in the order of the log. */
export const ofType = async (host: PodHost, type: string): Promise<readonly unknown[]> =>
  (await records(host.agent)).filter((record) => member(record, 'type') === type)
