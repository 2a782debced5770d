/** A lock between processes that the kernel lets go when its holder ends, however it ends. */
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'

/**
 * Runs `work` while holding the lock `file`. The lock is flock(1)'s, held by a child that lives as
 * long as its standard input is open, that is as long as this process: nothing stale can remain.
 */
export async function withLock(file, onWait, work) {
  mkdirSync(path.dirname(file), { recursive: true })
  const holder = spawn('flock', ['--exclusive', file, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => holder.on('close', resolve))
  const patience = setTimeout(onWait, 500)
  try {
    await new Promise((resolve, reject) => {
      holder.stdout.once('data', resolve)
      holder.once('error', reject)
      holder.once('close', () => reject(new Error(`flock did not take ${file}`)))
    })
    clearTimeout(patience)
    return await work()
  } finally {
    clearTimeout(patience)
    holder.stdin.end()
    await ended
  }
}
