/**
 * The seccomp worker (docs/formats.md section 9). One profile in, one program out, end.
 *
 * Request: {"profile":<OCI seccomp>}. Answer: {"ok":true,"program":"<base64>","digest":"sha256:..."}
 * or {"ok":false,"code":"SECCOMP_...","message":"..."}.
 */
import { createHash } from 'node:crypto'
import { readFileSync, writeSync } from 'node:fs'
import { type Canonical, canonicalBytes } from '../../../policy/canonical.ts'
import { parseSeccompProfile } from '../../seccomp/profile.ts'
import { members } from '../../shape.ts'
import { compile } from './libseccomp.ts'

const REQUEST = 3
const ANSWER = 4

function answer(): Canonical {
  try {
    // By its path: the descriptor's offset is where the agent left it.
    const request: unknown = JSON.parse(readFileSync(`/proc/self/fd/${REQUEST}`, 'utf8'))
    const { profile } = members(request, 'request', ['profile'])
    const program = compile(parseSeccompProfile(profile))
    const digest = `sha256:${createHash('sha256').update(program).digest('hex')}`
    return { ok: true, program: program.toString('base64'), digest }
  } catch (error) {
    if (!(error instanceof Error)) throw error
    const code: unknown = Reflect.get(error, 'code')
    const known = typeof code === 'string' ? code : 'SECCOMP_LIBRARY'
    return { ok: false, code: known, message: error.message }
  }
}

const bytes = canonicalBytes(answer())
for (let at = 0; at < bytes.length; ) at += writeSync(ANSWER, bytes, at)
