/** `casemate image sign|verify`: straight to the registry; no agent is asked. */
import { createHash, createPublicKey } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Command } from 'commander'
import { parseTenantId } from '../../policy/nouns/tenant.ts'
import type { Credentials, ImageSession, SignatureForm, TrustedKey } from '../images/index.ts'
import { readNamed, UsageError } from './arguments.ts'
import { loginFor } from './authfile.ts'
import { globalsOf, several, show } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { printDetails } from './output.ts'

interface RegistryOptions {
  readonly key: string
  readonly insecureRegistry?: readonly string[]
  readonly authfile?: string
}

function credentialsOf(file: string | undefined, reference: string): Credentials | null {
  const login = file === undefined ? null : loginFor(file, reference)
  return login === null ? null : { kind: 'password', ...login }
}

/** Nothing is unpacked here, so no worker and no blobs are needed. */
async function withImage<T>(
  reference: string,
  options: RegistryOptions,
  access: 'pull' | 'pull,push',
  use: (session: ImageSession) => Promise<T>,
): Promise<T> {
  // Loaded here: what speaks to registries is slow to load, and most commands do not.
  const { createImages } = await import('../images/index.ts')
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-image-'))
  const images = createImages({
    directory,
    allowances: (options.insecureRegistry ?? []).map((host) => ({ host, insecure: true })),
    runWorker: () => Promise.reject(new Error('the CLI builds no images')),
  })
  try {
    const session = await images.resolve(reference, {
      tenant: parseTenantId('cli'),
      credentials: credentialsOf(options.authfile, reference),
      access,
    })
    return await use(session).finally(() => session.close())
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const password = (): string | null => process.env['COSIGN_PASSWORD'] ?? null

function spkiOf(file: string, pem: string): Buffer {
  try {
    return createPublicKey(pem).export({ type: 'spki', format: 'der' })
  } catch (cause) {
    throw new UsageError(`--key ${file} holds no public key in PEM, as cosign.pub is`, { cause })
  }
}

function publicKeyOf(file: string): TrustedKey {
  const pem = readNamed('--key', file)
  const spki = spkiOf(file, pem)
  return { keyId: `sha256:${createHash('sha256').update(spki).digest('hex')}`, pem }
}

const withRegistryOptions = (command: Command): Command =>
  command
    .option('--insecure-registry <host:port>', 'speak plain HTTP with it, repeatable', several)
    .option('--authfile <file>', 'login of the registry, as `skopeo login` and docker write it')

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
        const { readSigningKey } = await import('../images/index.ts')
        const key = readSigningKey(readNamed('--key', options.key), password())
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
