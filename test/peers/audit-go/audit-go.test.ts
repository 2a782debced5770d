/** A log that our code wrote, verified by Go programs of others: see main.go. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { consistencyRanges, Frontier, leafHash, type Range } from '../../../audit/merkle.ts'
import { parseReceipt } from '../../../audit/receipt.ts'
import { note, open, prepare, scratch } from '../../audit/harness.ts'

const here = import.meta.dirname
const env = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly' }

/** Builds the verifier; the reason to skip where that cannot be. Go keeps what it built. */
function build(t: TestContext): string | null {
  if (spawnSync('go', ['version'], { env }).status !== 0) {
    t.skip('Go is not installed: no independent verifier of the log')
    return null
  }
  const fetched = spawnSync('go', ['mod', 'download'], { cwd: here, env, encoding: 'utf8' })
  if (fetched.status !== 0) {
    t.skip(`Go modules cannot be fetched: ${fetched.stderr.split('\n')[0] ?? ''}`)
    return null
  }
  const program = path.join(scratch(t), 'audit-go')
  const built = spawnSync('go', ['build', '-o', program, '.'], { cwd: here, env, encoding: 'utf8' })
  assert.equal(built.status, 0, built.stderr)
  return program
}

const verify = (program: string, directory: string): { status: number | null; output: string } => {
  const { status, stdout, stderr } = spawnSync(program, [directory], { encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

function treeHash(leaves: readonly Buffer[], { from, to }: Range): string {
  const frontier = new Frontier()
  for (const leaf of leaves.slice(from, to)) frontier.append(leaf)
  return frontier.root().toString('base64')
}

interface Folders {
  readonly records: string
  readonly receipts: string
  readonly checkpoints: string
  readonly consistency: string
}

function foldersIn(directory: string): Folders {
  const at = (name: string): string => path.join(directory, name)
  const folders = {
    records: at('records'),
    receipts: at('receipts'),
    checkpoints: at('checkpoints'),
    consistency: at('consistency'),
  }
  for (const folder of Object.values(folders)) mkdirSync(folder)
  return folders
}

/** Writes a log of more than two tiles and lays out what the verifier reads. */
async function write(t: TestContext): Promise<string> {
  const { directory, options, vkey } = await prepare(t)
  const folders = foldersIn(directory)
  const log = await open(t, options)
  for (const count of [1, 6, 120, 128, 1, 1, 290, 53]) {
    // oxlint-disable-next-line no-await-in-loop
    const batch = await Promise.all(Array.from({ length: count }, (_, n) => log.append(note(n, n))))
    for (const { index } of [batch[0], batch.at(-1)].filter((one) => one !== undefined)) {
      // oxlint-disable-next-line no-await-in-loop
      const receipt = await log.receipt(index)
      writeFileSync(path.join(folders.receipts, String(index)), receipt)
      const { checkpoint } = parseReceipt(receipt)
      writeFileSync(path.join(folders.checkpoints, checkpoint.split('\n')[1] ?? ''), checkpoint)
    }
  }
  const leaves: Buffer[] = []
  for await (const { index, bytes } of log.scan(0)) {
    writeFileSync(path.join(folders.records, String(index)), bytes)
    leaves.push(leafHash(bytes))
  }
  await log.close()
  const sizes = new Set([...readdirSync(folders.checkpoints).map(Number), leaves.length])
  for (const size of sizes) {
    for (const old of sizes) {
      if (old >= size) continue
      const lines = consistencyRanges(old, size).map((range) => treeHash(leaves, range))
      writeFileSync(path.join(folders.consistency, `${old}-${size}`), lines.join('\n'))
    }
  }
  writeFileSync(path.join(directory, 'vkey'), vkey)
  cpSync(path.join(options.directory, 'public'), path.join(directory, 'public'), {
    recursive: true,
  })
  return directory
}

suite('audit log under golang.org/x/mod and torchwood', () => {
  test('verifies whole, with its receipts and every step of its history', async (t) => {
    const program = build(t)
    if (program === null) return
    const directory = await write(t)
    const good = verify(program, directory)
    assert.equal(good.status, 0, good.output)
    assert.match(good.output, /entries 601\nreceipts \d+\npairs \d+\nok/u)
    t.diagnostic(good.output.trim().replaceAll('\n', ', '))
    // And it is not a verifier that says yes to everything.
    const bundle = path.join(directory, 'public/tile/entries/001')
    const bytes = readFileSync(bundle)
    bytes.writeUInt8(bytes.readUInt8(1000) ^ 1, 1000)
    writeFileSync(bundle, bytes)
    assert.equal(verify(program, directory).status, 1)
  })
})
