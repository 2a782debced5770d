/**
 * Files of a pod, from where they are kept to the one sealed descriptor in which its VMM or monitor gets them. What is
 * stored is found before the decision and opened after it: nobody's secret is decrypted for a launch that is refused.
 */
import { createHash, randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { memfdSealed } from '../../native/addon.ts'
import {
  type Digest,
  type FileFacts,
  type LaunchRequest,
  type Plan,
  parseDigest,
  Refusal,
  type WantedFile,
} from '../../policy/index.ts'
import type { TenantScope } from '../../tenants/index.ts'
import type { Ports } from './ports.ts'

/** As in native/ticket/src/files.rs: from a digest without one a short secret could be guessed. */
const SALT_BYTES = 32

export interface FoundFile extends FileFacts {
  /** The content; a stored one is read and decrypted by this. @throws Refusal, when it was removed since */
  readonly open: () => Promise<Uint8Array>
}

/** @throws Refusal CONFIG_NOT_FOUND, SECRET_NOT_FOUND */
async function find(
  { tenants }: Pick<Ports, 'tenants'>,
  scope: TenantScope,
  { source }: WantedFile,
): Promise<FoundFile> {
  if (source.kind === 'inline') {
    const { content } = source
    return { stored: null, size: content.length, open: () => Promise.resolve(content) }
  }
  const { kind, name } = source
  const found = await tenants.files.find(scope, kind, name)
  const missing = (): Refusal =>
    new Refusal(
      kind === 'secret' ? 'SECRET_NOT_FOUND' : 'CONFIG_NOT_FOUND',
      `The tenant has no ${kind} ${name}. Create it, or leave it out.`,
      { [kind]: name },
    )
  if (found === null) throw missing()
  const { version, size } = found
  const open = async (): Promise<Uint8Array> => {
    const content = await tenants.files.open(found)
    if (content === null) throw missing()
    return content
  }
  return { stored: { kind, name, version }, size, open }
}

/** The files of the request, in its order. @throws Refusal CONFIG_NOT_FOUND, SECRET_NOT_FOUND */
export async function findFiles(
  ports: Pick<Ports, 'tenants'>,
  scope: TenantScope,
  { files }: LaunchRequest,
): Promise<readonly FoundFile[]> {
  return await Promise.all(files.map((wanted) => find(ports, scope, wanted)))
}

/** What the spec says of the files, and the descriptor that holds them. */
export interface SealedFiles {
  readonly size: number
  readonly digest: Digest
  /** For reading only; of whoever asked for it. */
  readonly fd: number
}

/** Salt and content of the plan's files, in the plan's order; null: it has none. @throws Refusal CONFIG_NOT_FOUND, SECRET_NOT_FOUND */
export async function sealFiles(
  { mounts }: Plan,
  found: readonly FoundFile[],
): Promise<SealedFiles | null> {
  const wanted = mounts.flatMap((mount) => {
    const file = mount.kind === 'file' ? found[mount.file] : undefined
    return file === undefined ? [] : [file]
  })
  if (wanted.length === 0) return null
  const contents = await Promise.all(wanted.map((file) => file.open()))
  const bytes = Buffer.concat([randomBytes(SALT_BYTES), ...contents])
  const sealed = memfdSealed('casemate-files', bytes)
  try {
    const digest = parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`)
    return { size: bytes.length, digest, fd: openSync(`/proc/self/fd/${sealed}`, 'r') }
  } finally {
    closeSync(sealed)
    bytes.fill(0)
  }
}
