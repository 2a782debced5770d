/** The request for a process beside the app, as guest-init reads it (docs/formats.md section 7). */
import { createHash } from 'node:crypto'
import { canonicalBytes } from '../policy/canonical.ts'
import type { Arguments, Environment, User, WorkingDirectory } from '../policy/index.ts'

/** A frame's payload: native/ticket/src/exec.rs. */
export const EXEC_REQUEST_BYTES_MAX = 65_536

export interface TerminalSize {
  readonly rows: number
  readonly columns: number
}

export interface ExecWish {
  /** Beside which app, by its name; null: the first. */
  readonly app: string | null
  readonly args: Arguments
  /** On top of the app's. */
  readonly env: Environment
  /** null: the app's. */
  readonly cwd: WorkingDirectory | null
  /** null: the app's. */
  readonly user: User | null
  /** null: pipes in place of a terminal. */
  readonly terminal: TerminalSize | null
}

export interface ExecRequest {
  readonly bytes: Buffer
  /** What the record says of it, and the VMM compares. */
  readonly digest: string
}

export function requestOf(canonical: Uint8Array): ExecRequest {
  const bytes = Buffer.from(canonical)
  return { bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` }
}

export function execRequest({ app, args, env, cwd, user, terminal }: ExecWish): ExecRequest {
  const size = terminal === null ? null : { rows: terminal.rows, columns: terminal.columns }
  return requestOf(
    canonicalBytes({ app, args: [...args], env: [...env], cwd, user, terminal: size }),
  )
}
