/** `casemate image sign|verify`: straight to the registry; no agent is asked. */
import { createHash, createPublicKey } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Command } from 'commander'
import { parseTenantId } from '../../policy/index.ts'
import {
  type Credentials,
  createImages,
  type ImageSession,
  readSigningKey,
  type SignatureForm,
  type TrustedKey,
} from '../images/index.ts'
import { globalsOf, several, show, UsageError } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { printDetails } from './output.ts'

interface RegistryOptions {
  readonly key: string
  readonly insecureRegistry?: readonly string[]
  readonly credentials?: string
}

/** `username:password` in a file of the caller's own. */
function credentialsOf(file: string | undefined): Credentials | null {
  if (file === undefined) return null
  const text = readFileSync(file, 'utf8').trim()
  const colon = text.indexOf(':')
  if (colon < 1) throw new UsageError(`${file} must hold username:password`)
  return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** Nothing is unpacked here, so no worker and no blobs are needed. */
async function withImage<T>(
  reference: string,
  options: RegistryOptions,
  access: 'pull' | 'pull,push',
  use: (session: ImageSession) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-image-'))
  const images = createImages({
    directory,
    allowances: (options.insecureRegistry ?? []).map((host) => ({ host, insecure: true })),
    runWorker: () => Promise.reject(new Error('the CLI builds no images')),
  })
  try {
    const session = await images.resolve(reference, {
      tenant: parseTenantId('cli'),
      credentials: credentialsOf(options.credentials),
      access,
    })
    return await use(session).finally(() => session.close())
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const password = (): string | null => process.env['COSIGN_PASSWORD'] ?? null

function publicKeyOf(file: string): TrustedKey {
  const pem = readFileSync(file, 'utf8')
  const spki = createPublicKey(pem).export({ type: 'spki', format: 'der' })
  return { keyId: `sha256:${createHash('sha256').update(spki).digest('hex')}`, pem }
}

const withRegistryOptions = (command: Command): Command =>
  command
    .option('--insecure-registry <host:port>', 'speak plain HTTP with it, repeatable', several)
    .option('--credentials <file>', 'username:password of the registry')

export function addImages(program: Command): void {
  const image = program.command('image').description('signatures of images')
  withRegistryOptions(image.command('sign'))
    .description('sign what a reference stands for, as `cosign sign --key` does')
    .argument('<reference>')
    .requiredOption('--key <file>', 'private key in PEM; COSIGN_PASSWORD opens an encrypted one')
    .option('--form <form>', 'tag or bundle; as the registry has it when left out')
    .action(
      async (
        reference: string,
        options: RegistryOptions & { readonly form?: SignatureForm },
        command: Command,
      ) => {
        const key = readSigningKey(readFileSync(options.key, 'utf8'), password())
        await withImage(reference, options, 'pull,push', async (session) => {
          const signed = await session.sign(key, options.form ?? null)
          const { digest } = session.image.resolved
          show(globalsOf(command), { digest, ...signed }, printDetails)
        })
      },
    )
  withRegistryOptions(image.command('verify'))
    .description('check the signatures of an image with a public key')
    .argument('<reference>')
    .requiredOption('--key <file>', 'public key in PEM')
    .action(async (reference: string, options: RegistryOptions, command: Command) => {
      const key = publicKeyOf(options.key)
      await withImage(reference, options, 'pull', async (session) => {
        const { digest } = session.image.resolved
        const signatures = await session.collectEvidence([key])
        const verified = signatures.some((one) => one.verified && one.digest === digest)
        show(globalsOf(command), { digest, verified, signatures }, printDetails)
        if (!verified) process.exitCode = EXIT.verification
      })
    })
}
