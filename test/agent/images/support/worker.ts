/** Runs a worker as a child process, with the descriptors that spawn would give it. */
import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { WorkerRequest } from '../../../../native/worker-run.ts'

const workers = path.resolve(import.meta.dirname, '../../../../native/workers')

export async function runWorkerInChild(work: WorkerRequest): Promise<Buffer> {
  const { kind, request, fds, fileBytes, timeoutMs } = work
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-worker-'))
  const requestFile = path.join(directory, 'request')
  writeFileSync(requestFile, request)
  const requestFd = openSync(requestFile, 'r')
  try {
    const limited = [`--fsize=${fileBytes}`, process.execPath, path.join(workers, kind, 'main.ts')]
    const child = spawn('prlimit', limited, {
      stdio: ['ignore', 'ignore', 'inherit', requestFd, 'pipe', ...fds],
      env: { PATH: process.env['PATH'] ?? '' },
      timeout: timeoutMs,
    })
    const chunks: Buffer[] = []
    child.stdio[4]?.on('data', (chunk: Buffer) => void chunks.push(chunk))
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    if (code !== 0) throw new Error(`the worker ended with ${String(code)}`)
    return Buffer.concat(chunks)
  } finally {
    closeSync(requestFd)
    rmSync(directory, { recursive: true })
  }
}
