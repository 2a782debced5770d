/** Starts test/native/fd-answer.c: a peer that passes descriptors. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { type Canonical, canonicalBytes } from '../../policy/canonical.ts'

export interface FdPeer {
  readonly path: string
  /** What it printed: how many descriptors came, and the content of the first. */
  readonly heard: Promise<string>
}

export function frameOf(value: Canonical | Buffer): Buffer {
  const bytes = Buffer.isBuffer(value) ? value : canonicalBytes(value)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** One connection: takes a request, answers with `answer` and `count` descriptors of a file. */
export async function fdPeer(directory: string, answer: Buffer, count: number): Promise<FdPeer> {
  const program = path.join(directory, 'fd-answer')
  const source = path.join(import.meta.dirname, 'fd-answer.c')
  if (!existsSync(program)) execFileSync('gcc', ['-O1', '-o', program, source])
  const file = path.join(directory, 'answer')
  writeFileSync(file, answer)
  const socket = path.join(directory, 'peer.sock')
  const child = spawn(program, [socket, file, String(count)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const heard = text(child.stdout)
  await once(child.stdout, 'readable').catch(() => undefined)
  return { path: socket, heard: heard.then((said) => said.replace('listening\n', '').trim()) }
}
