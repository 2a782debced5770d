/** What a client of the host waits for at a published port, at each level: a connection, its answer and its end. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import path from 'node:path'
import { networkOf } from '../native/networks.ts'
import { archive, directory, file } from '../native/workers/rootfs/tar-writer.ts'
import { freePort } from '../peers/images-programs.ts'
import { type Machine, openMachine, whyNoContainers, whyNot } from '../system/harness.ts'
import { buildDisk, compile, type DiskFile } from '../system/images.ts'
import { start } from '../system/launch.ts'
import { noPodman, openPodman } from './containers/podman.ts'
import { type Figure, figure } from './figures.ts'
import type { Opened } from './opened.ts'
import { elapsedUs } from './timing.ts'

const POD_PORT = 7000
const HOST = '127.0.0.1'
const WARM_UP = 3
/** In software KVM each packet is read by an interpreted kernel. */
const REQUESTS = { vm: 20, container: 200, podman: 200 } as const
const SERVE = ['/bin/wire', 'serve', String(POD_PORT)]

async function request(port: number): Promise<void> {
  const socket = createConnection({ host: HOST, port })
  let said = ''
  socket.on('data', (chunk) => {
    said += chunk.toString()
  })
  await once(socket, 'close')
  if (!said.startsWith('hello ')) throw new Error(`port ${port} answered ${JSON.stringify(said)}`)
}

async function latency(name: keyof typeof REQUESTS, port: number): Promise<Figure> {
  const samples: number[] = []
  for (let count = 0; count < WARM_UP + REQUESTS[name]; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one client at a time
    samples.push(await elapsedUs(() => request(port)))
  }
  return figure(`port.request.${name}`, 'us', samples.slice(WARM_UP))
}

async function ofPod(machine: Machine, image: DiskFile): Promise<Figure> {
  const port = await freePort()
  const ports = [{ address: HOST, host: port, pod: POD_PORT, protocol: 'tcp' }] as const
  const network = networkOf({ gateways: ['10.88.0.1'], ports })
  const pod = await start(machine, { args: SERVE, image, network })
  try {
    await pod.says(/serve ready/u)
    return await latency(machine.level === 'vm' ? 'vm' : 'container', port)
  } finally {
    await machine.spawn.kill(pod.pod)
    await pod.exit()
  }
}

async function ofPodman(podman: ReturnType<typeof openPodman>): Promise<Figure> {
  const port = await freePort()
  const started = await podman(['--publish', `${HOST}:${port}:${POD_PORT}`]).start(SERVE)
  try {
    return await latency('podman', port)
  } finally {
    await started.stop()
  }
}

/** The levels that this host can have. */
const levels = (): readonly ('vm' | 'container')[] => [
  ...(whyNot() === null ? (['vm'] as const) : []),
  ...(whyNoContainers() === null ? (['container'] as const) : []),
]

/** Why there is nothing to measure here, or null. */
export const noPorts = (): string | null => (levels().length > 0 ? null : whyNot())

/** Needs root, and a KVM or runc; podman is measured where it is installed. */
export async function openPorts(folder: string): Promise<Opened> {
  const place = (name: string): string => path.join(folder, name)
  compile('guest/wire', place('wire'))
  const program = file('bin/wire', readFileSync(place('wire')), { mode: 0o755 })
  const tar = archive(...['bin', 'dev', 'proc', 'sys'].map((name) => directory(name)), program)
  const image = await buildDisk(place('wire.image'), tar)
  const machines: Machine[] = []
  const close = async (): Promise<void> =>
    void (await Promise.all(machines.map((one) => one.close())))
  try {
    // One after the other: each is the first to take ids and names that are free.
    // oxlint-disable-next-line no-await-in-loop -- see above
    for (const level of levels()) machines.push(await openMachine(level))
    await Promise.all(machines.map((machine) => machine.template))
    const podman = noPodman() === null ? openPodman(place('podman-port'), tar) : null
    return { measure: () => measure(machines, image, podman), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function measure(
  machines: readonly Machine[],
  image: DiskFile,
  podman: ReturnType<typeof openPodman> | null,
): Promise<readonly Figure[]> {
  const found: Figure[] = []
  // oxlint-disable-next-line no-await-in-loop -- what runs beside a measurement is measured too
  for (const machine of machines) found.push(await ofPod(machine, image))
  if (podman !== null) found.push(await ofPodman(podman))
  return found
}
