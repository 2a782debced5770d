/** Images with a directory of their own, against the test registry, for one test. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'
import {
  type Credentials,
  createImages,
  type ImageSession,
  type Images,
  type RunWorker,
} from '../../../../agent/images/index.ts'
import { parseTenantId } from '../../../../policy/index.ts'
import { REPOSITORY } from './image.ts'
import type { TestRegistry } from './registry.ts'
import { runWorkerInChild } from './worker.ts'

export function temporaryDirectory(context: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-images-'))
  context.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** `hosts` are what the provider vouches for, over plain HTTP. */
export function imagesFor(
  context: TestContext,
  hosts: readonly string[],
  runWorker: RunWorker = runWorkerInChild,
): Images {
  const allowances = hosts.map((host) => ({ host, insecure: true }))
  return createImages({ directory: temporaryDirectory(context), allowances, runWorker })
}

export interface OpenOptions {
  readonly images?: Images
  readonly tenant?: string
  readonly reference?: string
  readonly credentials?: Credentials | null
  readonly access?: 'pull' | 'pull,push'
}

/** Resolves the image that putImage made, or another reference; closed when the test ends. */
export async function open(
  context: TestContext,
  registry: TestRegistry,
  options: OpenOptions = {},
): Promise<ImageSession> {
  const images = options.images ?? imagesFor(context, [registry.host])
  const session = await images.resolve(
    options.reference ?? `${registry.host}/${REPOSITORY}:latest`,
    {
      tenant: parseTenantId(options.tenant ?? 'acme'),
      credentials: options.credentials ?? null,
      access: options.access ?? 'pull',
    },
  )
  context.after(() => session.close())
  return session
}
