/** Compiles seccomp profiles in the worker, once for each profile. */
import { createHash } from 'node:crypto'
import { type Canonical, canonicalBytes } from '../../policy/canonical.ts'
import { digest, members, text } from '../shape.ts'
import type { SpawnClient } from '../spawn-client.ts'
import type { SeccompProfile } from './profile.ts'

/** A program for the kernel, as the spec carries it. */
export interface SeccompProgram {
  /** SHA-256 of the program's bytes. */
  readonly digest: string
  /** Base64 of struct sock_filter[]. */
  readonly program: string
}

const COMPILE_MS = 30_000
const PROGRAM_CHARACTERS_MAX = 65_536
/** libseccomp writes a program to a memfd, which counts as a file; the kernel takes 32 KiB. */
export const PROGRAM_FILE_BYTES_MAX = 65_536
/** Profiles are few: the defaults by capability set. More than this means a caller chooses them. */
const CACHE_ENTRIES_MAX = 64

/** A profile that the worker could not compile; `code` is the worker's. */
export class SeccompCompileError extends Error {
  override readonly name = 'SeccompCompileError'
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

const plain = (profile: SeccompProfile): Canonical => ({
  defaultAction: profile.defaultAction,
  defaultErrnoRet: profile.defaultErrnoRet,
  syscalls: profile.syscalls.map((rule) => ({
    names: rule.names,
    action: rule.action,
    errnoRet: rule.errnoRet,
    args: rule.args.map((argument) => ({ ...argument })),
  })),
})

/** The worker is believed in nothing: the digest is ours, over the bytes that came. */
function readAnswer(bytes: Buffer): SeccompProgram {
  const answer: unknown = JSON.parse(bytes.toString('utf8'))
  if (typeof answer === 'object' && answer !== null && Reflect.get(answer, 'ok') === false) {
    const no = members(answer, 'answer', ['ok', 'code', 'message'])
    throw new SeccompCompileError(text(no['code'], 'code', 64), text(no['message'], 'message'))
  }
  const yes = members(answer, 'answer', ['ok', 'program', 'digest'])
  const program = text(yes['program'], 'program', PROGRAM_CHARACTERS_MAX)
  const raw = Buffer.from(program, 'base64')
  const measured = `sha256:${createHash('sha256').update(raw).digest('hex')}`
  const sound = raw.length > 0 && raw.length % 8 === 0 && raw.toString('base64') === program
  if (!sound || measured !== digest(yes['digest'], 'digest')) {
    throw new SeccompCompileError('SECCOMP_ANSWER', 'the seccomp worker answered no program')
  }
  return { digest: measured, program }
}

export type SeccompCompiler = (profile: SeccompProfile) => Promise<SeccompProgram>

/** A compiler with a small cache. Concurrent calls for one profile share one worker. */
export function seccompCompiler(spawn: Pick<SpawnClient, 'worker'>): SeccompCompiler {
  const cache = new Map<string, Promise<SeccompProgram>>()
  return (profile) => {
    const request = canonicalBytes({ profile: plain(profile) })
    const key = createHash('sha256').update(request).digest('hex')
    const known = cache.get(key)
    if (known !== undefined) return known
    const work = { kind: 'seccomp', request, fds: [], fileBytes: PROGRAM_FILE_BYTES_MAX } as const
    const fresh = spawn.worker({ ...work, timeoutMs: COMPILE_MS }).then(readAnswer)
    if (cache.size >= CACHE_ENTRIES_MAX) cache.clear()
    cache.set(key, fresh)
    fresh.catch(() => cache.delete(key))
    return fresh
  }
}
