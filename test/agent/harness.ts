/** A whole agent in a directory of its own: real store, real log with its signer, both listeners. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { type Logger, pino } from 'pino'
import { Agent as Dispatcher, request } from 'undici'
import { AGENT_SOCKET, type Agent, compose, type Surroundings } from '../../agent/compose.ts'
import { parseConfig } from '../../agent/config.ts'
import { afterwards, prepare, scratch } from '../audit/harness.ts'
import { type SpawnPeer, spawnPeer } from './spawn-peer.ts'

/** What came back, whole. */
export interface Reply {
  readonly status: number
  readonly type: string
  readonly text: string
  readonly json: unknown
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

export interface Call {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  /** In place of `body`: these very bytes. */
  readonly raw?: string | Buffer
  readonly headers?: Readonly<Record<string, string>>
}

export interface TestAgent {
  readonly directory: string
  readonly spawn: SpawnPeer
  /** Through the unix socket: the tests run as root or as a configured operator. */
  operator(call: Call): Promise<Reply>
  /** Over HTTPS, with a token or without. */
  tenant(token: string | null, call: Call): Promise<Reply>
  /** Creates the tenant and gives a token of it. */
  onboard(tenant: string, more?: object): Promise<string>
  readonly httpsPort: number
  readonly certificate: string
  /** Ends the agent as SIGTERM does. */
  end(): Promise<void>
  /** Ends the agent as SIGUSR2 does. */
  endWithPods(): Promise<void>
  /** Starts one anew on the same state. */
  again(): Promise<void>
  /** Takes the signer away, so that nothing can be put on record with a receipt. */
  readonly signer: { close(): unknown }
  readonly stateDir: string
}

export interface HarnessOptions {
  /** Beside the user of the tests. */
  readonly operators?: readonly number[]
  readonly requestsPerMinute?: number
  readonly insecureRegistries?: readonly string[]
  /** In place of this machine. */
  readonly surroundings?: Partial<Surroundings>
  /** Takes every line that the agent logs. */
  readonly logTo?: (line: string) => void
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer()
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      server.close(() => resolve(port))
    })
  })

async function send(
  dispatcher: Dispatcher,
  origin: string,
  call: Call,
  token: string | null,
): Promise<Reply> {
  const content = call.raw ?? (call.body === undefined ? null : JSON.stringify(call.body))
  const { statusCode, headers, body } = await request(`${origin}${call.path}`, {
    dispatcher,
    method: call.method ?? 'GET',
    headers: {
      ...(content === null ? {} : { 'content-type': 'application/json' }),
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...call.headers,
    },
    body: content,
  })
  const text = await body.text()
  const type = String(headers['content-type'] ?? '')
  const parsed: unknown = /json/u.test(type) && !/ndjson/u.test(type) ? JSON.parse(text) : null
  return { status: statusCode, type, text, json: parsed, headers }
}

export const member = (value: unknown, ...names: readonly string[]): unknown =>
  names.reduce<unknown>(
    (found, name) =>
      typeof found === 'object' && found !== null ? Reflect.get(found, name) : undefined,
    value,
  )

function loggerOf({ logTo }: HarnessOptions): Logger {
  if (logTo === undefined) return pino({ level: 'silent' })
  return pino({ level: 'trace' }, { write: logTo })
}

/** Starts an agent; everything ends with the test. */
export async function startAgent(t: TestContext, options: HarnessOptions = {}): Promise<TestAgent> {
  const directory = scratch(t)
  const place = await prepare(t, directory)
  const vkeyFile = path.join(directory, 'vkey')
  writeFileSync(vkeyFile, place.vkey)
  const run = path.join(directory, 'run')
  mkdirSync(run)
  const spawn = await spawnPeer(path.join(run, 'spawn.sock'))
  afterwards(t, () => spawn.close())
  const httpsPort = await freePort()
  const stateDir = path.join(directory, 'agent')
  const config = parseConfig(
    Buffer.from(
      JSON.stringify({
        v: 'casemate.agent/1',
        node: 'test-host',
        state_dir: stateDir,
        run_dir: run,
        spawn_socket: spawn.path,
        signer_socket: path.join(directory, 'signer.sock'),
        vkey_file: vkeyFile,
        operators: [process.getuid?.() ?? 0, ...(options.operators ?? [])],
        https_port: httpsPort,
        registries: (options.insecureRegistries ?? []).map((host) => ({ host, insecure: true })),
        image_floor: null,
        resolver: { nameservers: [], options: [], search: [] },
        keep: { ended_pods_days: 30, unused_images_days: 30 },
        requests_per_minute: options.requestsPerMinute ?? 10_000,
      }),
    ),
  )
  const begin = (): Promise<Agent> => compose(config, loggerOf(options), options.surroundings)
  let agent: Agent | null = await begin()
  const end = async (): Promise<void> => {
    await agent?.close('test')
    agent = null
  }
  afterwards(t, end)
  const unix = new Dispatcher({ connect: { socketPath: path.join(run, AGENT_SOCKET) } })
  const https = new Dispatcher({ connect: { rejectUnauthorized: false } })
  afterwards(t, () => Promise.all([unix.close(), https.close()]))
  const operator = (call: Call): Promise<Reply> => send(unix, 'http://agent', call, null)
  return {
    directory,
    stateDir,
    spawn,
    httpsPort,
    certificate: path.join(run, 'certificate.pem'),
    operator,
    tenant: (token, call) => send(https, `https://127.0.0.1:${httpsPort}`, call, token),
    onboard: async (id, more = {}) => {
      await operator({ method: 'POST', path: '/v1/tenants', body: { id, ...more } })
      const body = { name: 'tests' }
      const issued = await operator({ method: 'POST', path: `/v1/tenants/${id}/tokens`, body })
      return String(member(issued.json, 'token'))
    },
    end,
    endWithPods: async () => {
      await agent?.closeWithPods('test')
      agent = null
    },
    again: async () => {
      agent = await begin()
    },
    signer: place.server,
  }
}
