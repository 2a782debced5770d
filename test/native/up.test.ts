/** What `casemate up` keeps of its processes' words, and what it does when there is no room for them. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { startChild } from '../../native/up/child.ts'
import { LogFile } from '../../native/up/log-file.ts'
import { temporary } from './temporary.ts'

const talkative = (logFile: string) =>
  ({
    name: 'agent',
    command: ['sh', '-c', 'echo first; echo ready now; echo last >&2'],
    ready: 'ready ',
    logFile,
  }) as const

suite('native/up/log-file', () => {
  test('keeps to twice its size, with the newest lines', (t) => {
    const directory = temporary(t)
    const file = path.join(directory, 'agent.log')
    const log = new LogFile(file, 100)
    for (let index = 0; index < 50; index += 1) log.write(`line ${index}`)
    log.close()
    assert.deepEqual(readdirSync(directory).toSorted(), ['agent.log', 'agent.log.1'])
    for (const name of [file, `${file}.1`]) assert.ok(statSync(name).size <= 100)
    const kept = `${readFileSync(`${file}.1`, 'utf8')}${readFileSync(file, 'utf8')}`
    assert.match(kept, /^line \d+\n/u)
    assert.ok(kept.endsWith('line 48\nline 49\n'))
  })

  test('goes on behind what an earlier run wrote, and counts it', (t) => {
    const file = path.join(temporary(t), 'agent.log')
    for (const line of ['a'.repeat(60), 'b'.repeat(60)]) {
      const log = new LogFile(file, 100)
      log.write(line)
      log.close()
    }
    assert.equal(readFileSync(`${file}.1`, 'utf8'), `${'a'.repeat(60)}\n`)
    assert.equal(readFileSync(file, 'utf8'), `${'b'.repeat(60)}\n`)
  })
})

suite('native/up/child', () => {
  test('writes down what a process says, on both streams', async (t) => {
    const logFile = path.join(temporary(t), 'agent.log')
    const child = await startChild(talkative(logFile))
    assert.equal(child.said, 'now')
    assert.equal(await child.ended, 'exit code 0')
    const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n').toSorted()
    assert.deepEqual(lines, ['first', 'last', 'ready now'])
  })

  test('goes on without a log when the disk is full', async (t) => {
    const logFile = path.join(temporary(t), 'agent.log')
    symlinkSync('/dev/full', logFile)
    const child = await startChild(talkative(logFile))
    assert.equal(child.said, 'now')
    assert.equal(await child.ended, 'exit code 0')
  })
})
