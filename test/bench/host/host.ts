/** A whole Casemate host as `casemate up` starts it, a registry, and one tenant's way in. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type Client, connect } from '../../../agent/cli/client.ts'
import { generateSigningKey } from '../../../agent/images/index.ts'
import { freePort, startDockerRegistry } from '../../peers/images-programs.ts'
import { type Program, startProgram } from '../../system/processes.ts'
import { pushSigned, ruleOf, TENANT } from '../../system/signed-image.ts'
import { busyboxTar, HELLO } from '../busybox.ts'

const root = path.resolve(import.meta.dirname, '../../..')
/** All that `casemate up` needs of an environment. */
const PATH = 'PATH=/usr/sbin:/usr/bin:/sbin:/bin'

export interface Host {
  /** Reference of the signed image. */
  readonly image: string
  /** The tenant, over HTTPS with its token. */
  readonly tenant: Client
  close(): Promise<void>
}

function up(folder: string, port: number, registry: string): Promise<Program> {
  const flags = {
    'state-dir': path.join(folder, 'state'),
    'run-dir': path.join(folder, 'run'),
    'https-port': String(port),
    'insecure-registry': registry,
  }
  const cli = path.join(root, 'agent/cli/main.ts')
  const command = ['/usr/bin/env', PATH, process.execPath, cli, 'up', '--allow-software-kvm']
  command.push(...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]))
  return startProgram(command, 'casemate is up')
}

const member = (value: unknown, name: string): string =>
  typeof value === 'object' && value !== null ? String(Reflect.get(value, name)) : ''

/** Onboards the tenant as its operator and comes back as the tenant. */
async function onboard(folder: string, port: number, rule: object): Promise<Client> {
  const operator = connect({ socket: path.join(folder, 'run/agent/agent.sock') })
  const tokenFile = path.join(folder, 'token')
  try {
    const body = { id: TENANT, image_rule: rule }
    await operator.json({ method: 'POST', path: '/v1/tenants', body })
    const place = `/v1/tenants/${TENANT}/tokens`
    const issued = await operator.json({ method: 'POST', path: place, body: { name: 'bench' } })
    writeFileSync(tokenFile, member(issued, 'token'), { mode: 0o600 })
  } finally {
    await operator.close()
  }
  const ca = path.join(folder, 'run/agent/certificate.pem')
  return connect({ url: `https://127.0.0.1:${port}`, ca, tokenFile })
}

const HELLO_IMAGE = {
  repository: 'bench/hello',
  layers: [busyboxTar()],
  config: { Cmd: HELLO, Env: ['PATH=/bin'], WorkingDir: '/' },
}

/** Needs root. @throws when a part does not start */
export async function openHost(folder: string): Promise<Host> {
  const endings: (() => unknown)[] = []
  const close = async (): Promise<void> => {
    // oxlint-disable-next-line no-await-in-loop -- the last to start is the first to end
    for (const end of endings.toReversed()) await end()
  }
  try {
    mkdirSync(folder)
    chmodSync(folder, 0o711) // agent, signer and worker pass through to their own folders
    const registry = await startDockerRegistry(folder)
    endings.push(() => registry.stop())
    process.once('exit', () => registry.stop()) // also when a signal ends us
    const keys = generateSigningKey()
    const directory = path.join(folder, 'cli')
    const image = await pushSigned({ host: registry.host, directory, keys }, HELLO_IMAGE)
    const port = await freePort()
    const running = await up(folder, port, registry.host)
    endings.push(() => running.end())
    const tenant = await onboard(folder, port, ruleOf(registry.host, keys))
    endings.push(() => tenant.close())
    return { image, tenant, close }
  } catch (error) {
    await close()
    throw error
  }
}
