/** Set-up's behaviour when something is missing, fails, or runs twice at once. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, suite, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { script, scriptsFolder } from './script.ts'

interface Lock {
  readonly withLock: <Result>(
    file: string,
    onWait: () => void,
    work: () => Promise<Result>,
  ) => Promise<Result>
}
interface Run {
  Log: new (
    name: string,
  ) => {
    readonly file: string
    run(command: readonly string[], options?: { advice: string }): Promise<void>
    close(): Promise<void>
  }
}

const folder = mkdtempSync(path.join(tmpdir(), 'casemate-setup-'))
after(() => rmSync(folder, { recursive: true }))
const root = path.dirname(scriptsFolder)

suite('scripts/setup', () => {
  test('lists everything that is missing at once, and changes nothing', () => {
    const cache = path.join(folder, 'cache')
    const { status, stderr } = spawnSync(
      process.execPath,
      [path.join(scriptsFolder, 'setup.mjs')],
      {
        encoding: 'utf8',
        env: { PATH: path.join(folder, 'nothing'), CASEMATE_CACHE: cache },
      },
    )
    assert.equal(status, 1)
    for (const what of ['npm', 'C and C++ compiler', 'Rust', 'flock']) {
      assert.ok(stderr.includes(what), `${what} is not named in: ${stderr}`)
    }
    assert.match(stderr, /what to do: /u)
    assert.equal(existsSync(cache), false)
  })

  test('names the command, the log and what to do when a step fails', async () => {
    const { Log } = await script<Run>('setup/run.mjs')
    const log = new Log('test-failure')
    const failure = log.run(['sh', '-c', 'echo out of luck; exit 3'], {
      advice: 'try your luck again',
    })
    await assert.rejects(failure, (error: Error & { advice: string }) => {
      assert.match(error.message, /`sh -c .*` ended with 3/u)
      assert.ok(error.message.includes('out of luck') && error.message.includes(log.file))
      assert.equal(error.advice, 'try your luck again')
      return true
    })
    await log.close()
    assert.match(readFileSync(log.file, 'utf8'), /^out of luck$/mu)
    rmSync(log.file)
  })

  test('names a program that is not there', async () => {
    const { Log } = await script<Run>('setup/run.mjs')
    const log = new Log('test-missing')
    await assert.rejects(log.run(['no-such-program-here']), /no-such-program-here.*ENOENT/u)
    await log.close()
    rmSync(log.file)
  })
})

suite('scripts/setup: ended early', () => {
  test('stops the program that a step was running', async () => {
    const run = JSON.stringify(path.join(scriptsFolder, 'setup/run.mjs'))
    const text = `
      import { Log } from ${run}
      process.on('SIGTERM', () => process.exit(143))
      const log = new Log('test-ended', (line) => process.stdout.write(line))
      await log.run(['sh', '-c', 'echo pid $$.; exec sleep 600'])`
    const child = spawn(process.execPath, ['--input-type=module', '-e', text], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    const pid = await new Promise<number>((resolve) => {
      child.stdout.setEncoding('utf8').on('data', (piece) => {
        said += String(piece)
        const found = /pid (\d+)\./u.exec(said)?.[1]
        if (found !== undefined) resolve(Number(found))
      })
    })
    const ended = once(child, 'exit')
    child.kill('SIGTERM')
    assert.deepEqual(await ended, [143, null])
    const alive = (): boolean =>
      existsSync(`/proc/${pid}`) && !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(' Z ')
    for (let attempt = 0; attempt < 200 && alive(); attempt += 1) await setTimeout(50)
    assert.equal(alive(), false)
    rmSync(path.join(root, '.tools/logs/test-ended.log'), { force: true })
  })
})

suite('scripts/setup/lock', () => {
  const file = path.join(folder, 'lock')
  /** A process that takes the lock, says so, and keeps it. */
  const keeper = `
    import { withLock } from ${JSON.stringify(path.join(scriptsFolder, 'setup/lock.mjs'))}
    await withLock(${JSON.stringify(file)}, () => {}, () => new Promise(() => {
      process.stdout.write('held')
      setInterval(() => {}, 1000)
    }))`

  test('keeps a second process out and lets it in when the first is killed', async () => {
    const { withLock } = await script<Lock>('setup/lock.mjs')
    const first = spawn(process.execPath, ['--input-type=module', '-e', keeper], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(first.stdout, 'data')
    let ended = false
    const onWait = (): void => {
      ended = first.kill('SIGKILL') // only once the second was seen to wait
    }
    const order = await withLock(file, onWait, async () => ended)
    assert.equal(order, true)
  })

  test('gives back what the work returns, and lets go when it throws', async () => {
    const { withLock } = await script<Lock>('setup/lock.mjs')
    const never = (): void => assert.fail('nobody else holds the lock')
    const failing = withLock(file, never, () => Promise.reject(new Error('broken')))
    await assert.rejects(failing, /broken/u)
    assert.equal(await withLock(file, never, async () => 7), 7)
  })
})

suite('artifacts.json', () => {
  const manifest = path.join(root, '.tools/artifacts/artifacts.json')
  const skip = existsSync(manifest) ? false : 'set-up has not finished in this checkout'

  test('names files that are there, with their size and digest', { skip }, () => {
    const found = JSON.parse(readFileSync(manifest, 'utf8')) as Record<string, unknown>
    assert.equal(found['v'], 'casemate.artifacts/1')
    const { hardware, software } = found['kernel'] as Record<string, unknown>
    for (const entry of [hardware, software, found['init'], found['vmm'], found['spawn']]) {
      const { path: file, digest, size } = entry as { path: string; digest: string; size: number }
      const bytes = readFileSync(file)
      assert.equal(bytes.length, size)
      assert.equal(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, digest)
    }
  })
})
