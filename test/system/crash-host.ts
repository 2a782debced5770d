/** The host of the crash tests: starts the driver, an image and a tenant; kills and starts agents. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { setImmediate as soon } from 'node:timers/promises'
import { Agent as Dispatcher, request } from 'undici'
import { generateSigningKey } from '../../agent/images/index.ts'
import { type SpawnClient, spawnClient } from '../../native/spawn-client.ts'
import { startDockerRegistry } from '../peers/images-programs.ts'
import { busyboxTar } from './images.ts'
import { type ImageToPush, pushSigned, ruleOf } from './signed-image.ts'

export interface PodRow {
  readonly id: string
  readonly state: string
  readonly record: number | null
}

export interface CrashHost {
  readonly spawn: SpawnClient
  readonly image: string
  /** Starts an agent and resolves when it serves. */
  agent(): Promise<void>
  /** kill -9. Resolves when it is gone. */
  kill(): Promise<void>
  call(method: 'GET' | 'POST', place: string, body?: object, key?: string): Promise<unknown>
  /** What a pod of the tenant's has written, until now. */
  log(tenant: string, pod: string): Promise<string>
  /** Looks into the agent's database until `wanted` is true of the pod of this key, and returns it. */
  until(key: string, wanted: (pod: PodRow) => boolean): Promise<PodRow>
  close(): Promise<void>
}

/** Says something and then waits. */
export const WAITING: ImageToPush = {
  repository: 'demo/crash',
  layers: [busyboxTar('/bin/busybox')],
  config: {
    Cmd: ['/bin/sh', '-c', 'echo before; sleep 1000'],
    Env: ['PATH=/bin'],
    WorkingDir: '/',
  },
}

/** Resolves with the next line that begins with `word`. */
const lineOf = (lines: Interface, child: ChildProcess, word: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const take = (line: string): void => {
      if (!line.startsWith(word)) return
      lines.off('line', take)
      resolve(line.slice(word.length).trim())
    }
    lines.on('line', take)
    child.once('exit', (code) => reject(new Error(`the host ended with ${String(code)}`)))
  })

function podsOf(database: string, key: string): readonly PodRow[] {
  const opened = new DatabaseSync(database, { readOnly: true })
  try {
    const rows = opened
      .prepare(
        'SELECT p.id, p.state, p.record_index FROM pods p JOIN idempotency i ON i.pod = p.id WHERE i.key = ?',
      )
      .all(key)
    return rows.map((row) => ({
      id: String(row['id']),
      state: String(row['state']),
      record: row['record_index'] === null ? null : Number(row['record_index']),
    }))
  } finally {
    opened.close()
  }
}

/**
 * Signer, spawn, registry, image, an agent and the tenant `acme`, and those that may have containers, whose pods may publish
 * `ports`.
 */
export async function openCrashHost(
  contained: readonly string[] = [],
  ports: readonly string[] = [],
): Promise<CrashHost> {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-crash-'))
  chmodSync(directory, 0o755) // processes of other users work below it
  const registry = await startDockerRegistry(directory)
  const keys = generateSigningKey()
  const cli = path.join(directory, 'cli')
  const image = await pushSigned({ host: registry.host, directory: cli, keys }, WAITING)
  const state = path.join(directory, 'state')
  const run = path.join(directory, 'run')
  const driver = path.join(import.meta.dirname, 'host-driver.ts')
  const levels = JSON.stringify(Object.fromEntries(contained.map((id) => [id, ['container']])))
  const inside = [process.execPath, driver, state, run, registry.host, levels]
  const child = spawn('unshare', ['--mount', '--propagation', 'private', '--', ...inside], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })
  await lineOf(lines, child, 'host').catch((error: unknown) => {
    registry.stop()
    throw error
  })
  const unix = new Dispatcher({
    connect: { socketPath: path.join(run, 'agent/agent.sock') },
    headersTimeout: 0,
    bodyTimeout: 0,
  })
  let pid = 0
  const ask = async (
    method: 'GET' | 'POST',
    place: string,
    headers: Readonly<Record<string, string>>,
    body: object | undefined,
  ): Promise<string> => {
    const answer = await request(`http://agent${place}`, {
      dispatcher: unix,
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
    })
    return await answer.body.text()
  }
  const call: CrashHost['call'] = async (method, place, body, key) => {
    const headers = {
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(key === undefined ? {} : { 'idempotency-key': key }),
    }
    const text = await ask(method, place, headers, body)
    const value: unknown = text === '' ? null : JSON.parse(text)
    return value
  }
  const agent = async (): Promise<void> => {
    const started = lineOf(lines, child, 'agent')
    child.stdin.write('agent\n')
    pid = Number(await started)
  }
  await agent()
  const rule = { image_rule: ruleOf(registry.host, keys) }
  await call('POST', '/v1/tenants', { id: 'acme', ...rule })
  const quotas = { vcpus: 64, memory_mib: 8192, pods: 64, launches_per_minute: 600 }
  const trusted = { trust: 'trusted', quotas, ports, ...rule }
  for (const id of contained) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await call('POST', '/v1/tenants', { id, ...trusted })
  }
  return {
    spawn: spawnClient(path.join(run, 'spawn/spawn.sock')),
    image,
    agent,
    call,
    log: (tenant, pod) =>
      ask('GET', `/v1/tenants/${tenant}/pods/${pod}/logs`, { accept: 'text/plain' }, undefined),
    kill: async () => {
      process.kill(pid, 'SIGKILL')
      const gone = (): boolean => {
        try {
          return process.kill(pid, 0) && false
        } catch {
          return true
        }
      }
      // oxlint-disable-next-line no-await-in-loop -- the driver reaps it in a moment
      while (!gone()) await soon()
    },
    until: async (key, wanted) => {
      for (;;) {
        const pod = podsOf(path.join(state, 'agent/casemate.db'), key).find(wanted)
        if (pod !== undefined) return pod
        // oxlint-disable-next-line no-await-in-loop -- looking again is the point
        await soon()
      }
    },
    close: async () => {
      await unix.close()
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.stdin.end()
      await ended
      registry.stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
