/** Launches as a tenant sees them: over HTTPS, through every part, until output arrives. */
import { randomUUID } from 'node:crypto'
import path from 'node:path'
import type { Client } from '../../agent/cli/client.ts'
import { TENANT } from '../system/signed-image.ts'
import { type Figure, figure } from './figures.ts'
import { type Host, openHost } from './host/host.ts'
import type { Opened } from './opened.ts'
import { nowUs } from './timing.ts'

const LAUNCHES = 3
const US_PER_MS = 1000

interface Launched {
  /** Until the launch was answered, milliseconds. */
  readonly answered: number
  /** Until the first byte of the pod's output was here. */
  readonly output: number
}

const idOf = (pod: unknown): string =>
  typeof pod === 'object' && pod !== null ? String(Reflect.get(pod, 'id')) : ''

/** Follows the log as text, which holds the app's output and nothing else, to its first byte. */
async function firstByte(tenant: Client, pod: string): Promise<number> {
  const place = `/v1/tenants/${TENANT}/pods/${pod}`
  const log = await tenant.stream({
    method: 'GET',
    path: `${place}/logs?follow=true`,
    headers: { accept: 'text/plain' },
  })
  let at = 0
  for await (const chunk of log) if (at === 0 && chunk.length > 0) at = nowUs()
  await tenant.json({ method: 'GET', path: `${place}/wait?timeout_s=600` })
  if (at === 0) throw new Error(`the pod ${pod} wrote nothing`)
  return at
}

async function launch({ tenant, image }: Host): Promise<Launched> {
  const began = nowUs()
  const pod = await tenant.json({
    method: 'POST',
    path: `/v1/tenants/${TENANT}/pods`,
    headers: { 'idempotency-key': randomUUID() },
    body: { image },
  })
  const answered = nowUs()
  const output = await firstByte(tenant, idOf(pod))
  return { answered: (answered - began) / US_PER_MS, output: (output - began) / US_PER_MS }
}

async function measure(host: Host): Promise<readonly Figure[]> {
  const found: Launched[] = []
  for (let count = 0; count < LAUNCHES; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one machine at a time
    found.push(await launch(host))
  }
  const answered = found.map((one) => one.answered)
  const output = found.map((one) => one.output)
  return [figure('pod.answered', 'ms', answered), figure('pod.first_byte', 'ms', output)]
}

/** Needs root, a KVM and docker-registry. */
export async function openPods(folder: string): Promise<Opened> {
  const host = await openHost(path.join(folder, 'host'))
  try {
    await launch(host) // builds template and image, which later launches find
    return { measure: () => measure(host), close: () => host.close() }
  } catch (error) {
    await host.close()
    throw error
  }
}
