import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { Frontier, leafHash } from '../../audit/merkle.ts'
import { openCheckpoint, parseVkey } from '../../audit/note.ts'
import { Keeper } from '../../audit/signer/keeper.ts'
import { encodeFrame, FrameReader, readAnswer, writeRequest } from '../../audit/signer/protocol.ts'
import { SignerClient } from '../../audit/signer-client.ts'
import { afterwards, connectAs, ORIGIN, prepare, scratch } from './harness.ts'

const leavesOf = (...names: readonly string[]): Buffer[] =>
  names.map((name) => leafHash(Buffer.from(name)))
const [a, b, c] = ['a', 'b', 'c'].map((name) => leafHash(Buffer.from(name)))

suite('audit/signer/keeper', () => {
  test('signs what extends what it signed, with the root it computed itself', (t) => {
    const keeper = Keeper.open(path.join(scratch(t), 'keys'), ORIGIN)
    const answer = keeper.answer({ op: 'sign', old_size: 0, leaves: leavesOf('a', 'b') })
    assert.ok(answer.ok)
    const frontier = new Frontier()
    for (const leaf of leavesOf('a', 'b')) frontier.append(leaf)
    const checkpoint = openCheckpoint(answer.note ?? '', [parseVkey(keeper.vkey)])
    assert.deepEqual(checkpoint, { origin: ORIGIN, size: 2, root: frontier.root() })
  })

  test('refuses a fork, a roll-back and a replay, also after a restart', (t) => {
    const keys = path.join(scratch(t), 'keys')
    const first = Keeper.open(keys, ORIGIN)
    const signed = first.answer({ op: 'sign', old_size: 0, leaves: leavesOf('a', 'b') })
    assert.ok(signed.ok)
    for (const keeper of [first, Keeper.open(keys, ORIGIN)]) {
      for (const request of [
        { op: 'sign', old_size: 0, leaves: leavesOf('x', 'y') },
        { op: 'sign', old_size: 0, leaves: leavesOf('a', 'b') },
        { op: 'sign', old_size: 1, leaves: leavesOf('y') },
        { op: 'sign', old_size: 3, leaves: [] },
      ] as const) {
        const answer = keeper.answer(request)
        assert.ok(!answer.ok)
        assert.equal(answer.code, 'SIGNER_REFUSED')
      }
      // What it signed it may sign again: Ed25519 gives the same bytes.
      const again = keeper.answer({ op: 'sign', old_size: 2, leaves: [] })
      assert.ok(again.ok)
      assert.equal(again.note, signed.note)
    }
    const next = Keeper.open(keys, ORIGIN).answer({
      op: 'sign',
      old_size: 2,
      leaves: leavesOf('c'),
    })
    assert.ok(next.ok)
    assert.equal(next.size, 3)
  })

  test('does not start with its memory gone, of another log, or changed', (t) => {
    const keys = path.join(scratch(t), 'keys')
    const keeper = Keeper.open(keys, ORIGIN)
    assert.ok(keeper.answer({ op: 'sign', old_size: 0, leaves: leavesOf('a') }).ok)
    assert.throws(() => Keeper.open(keys, 'other.test/log'), { code: 'SIGNER_STATE' })
    const copy = `${keys}-copy`
    for (const name of ['signed', 'key']) {
      cpSync(keys, copy, { recursive: true })
      rmSync(path.join(copy, name))
      assert.throws(() => Keeper.open(copy, ORIGIN), { code: 'SIGNER_STATE' })
      rmSync(copy, { recursive: true })
    }
    const text = readFileSync(path.join(keys, 'signed'), 'utf8')
    assert.ok(text.includes('"size":1'))
  })

  test('keeps key and state to its own user', (t) => {
    const keys = path.join(scratch(t), 'keys')
    Keeper.open(keys, ORIGIN)
    assert.equal(statSync(keys).mode & 0o777, 0o700)
    for (const name of ['key', 'signed']) {
      assert.equal(statSync(path.join(keys, name)).mode & 0o777, 0o600)
    }
  })
})

/** Sends raw bytes to the signer and gives what comes back until it closes. */
async function talk(socketPath: string, bytes: Buffer): Promise<Buffer> {
  const socket = connect(socketPath)
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.end(bytes)
  await once(socket, 'close')
  return Buffer.concat(chunks)
}

suite('audit/signer/server', () => {
  test('is reachable for user and group only', async (t) => {
    const { options } = await prepare(t)
    assert.equal(statSync(options.signerSocket).mode & 0o777, 0o660)
  })

  const big = Buffer.alloc(4)
  big.writeUInt32LE(600_000)
  const bad: readonly (readonly [string, Buffer])[] = [
    ['a length beyond the limit', big],
    ['JSON that is not canonical', Buffer.concat([Buffer.from([3, 0, 0, 0]), Buffer.from('{ }')])],
    ['an unknown operation', encodeFrame({ op: 'export' })],
    ['a member too many', encodeFrame({ op: 'state', key: 1 })],
    ['a hash that is none', encodeFrame({ op: 'sign', old_size: 0, leaves: ['AAAA'] })],
    ['a negative size', encodeFrame({ op: 'sign', old_size: -1, leaves: [] })],
    [
      'too many leaves',
      encodeFrame({ op: 'sign', old_size: 0, leaves: Array.from({ length: 4097 }, () => 'A') }),
    ],
  ]
  for (const [name, bytes] of bad) {
    test(`refuses ${name} and goes on serving`, async (t) => {
      const { keeper, options } = await prepare(t)
      const [value = null] = new FrameReader().push(await talk(options.signerSocket, bytes))
      const answer = readAnswer(value)
      assert.ok(!answer.ok)
      assert.equal(answer.code, 'SIGNER_BAD_FRAME')
      const client = new SignerClient(options.signerSocket)
      assert.equal((await client.ask({ op: 'state' })).vkey, keeper.vkey)
      client.close()
    })
  }

  test('reads requests that come in pieces and answers them in order', async (t) => {
    const { options } = await prepare(t)
    assert.ok(a !== undefined && b !== undefined && c !== undefined)
    const bytes = Buffer.concat([
      writeRequest({ op: 'sign', old_size: 0, leaves: [a] }),
      writeRequest({ op: 'sign', old_size: 1, leaves: [b, c] }),
      writeRequest({ op: 'state' }),
    ])
    const socket = connect(options.signerSocket)
    const reader = new FrameReader()
    const sizes: number[] = []
    socket.on('data', (chunk: Buffer) => {
      for (const value of reader.push(chunk)) {
        const answer = readAnswer(value)
        sizes.push(answer.ok ? answer.size : -1)
      }
      if (sizes.length === 3) socket.end()
    })
    for (const byte of bytes) socket.write(Buffer.from([byte]))
    await once(socket, 'close')
    assert.deepEqual(sizes, [1, 3, 3])
  })
})

interface Running {
  readonly child: ChildProcess
  readonly vkey: string
}

const root = path.join(import.meta.dirname, '../..')

function run(directory: string, uid: number = process.getuid?.() ?? 0) {
  const options = {
    socket: path.join(directory, 's'),
    keys: path.join(directory, 'keys'),
    vkey: path.join(directory, 'vkey'),
    origin: ORIGIN,
    uid: String(uid),
    peers: path.join(root, 'native/addon.ts'),
  }
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const command = [path.join(root, 'audit/signer/main.ts'), ...flags]
  return spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'pipe'] })
}

async function start(t: TestContext, directory: string, uid?: number): Promise<Running> {
  const child = run(directory, uid)
  child.stderr.pipe(process.stderr)
  afterwards(t, () => child.kill('SIGKILL'))
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return { child, vkey: line.toString().trim().replace('ready ', '') }
}

suite('audit/signer/main', () => {
  test('answers nothing that it could not write down, and goes on when it can again', async (t) => {
    const directory = scratch(t)
    const { child } = await start(t, directory)
    const client = new SignerClient(path.join(directory, 's'))
    // As on a full disk nothing can be written; unlike there, only of this file.
    const inTheWay = path.join(directory, 'keys/signed.new')
    mkdirSync(path.join(inTheWay, 'x'), { recursive: true })
    await assert.rejects(client.ask({ op: 'sign', old_size: 0, leaves: leavesOf('a') }))
    assert.equal((await client.ask({ op: 'state' })).size, 0)
    rmSync(inTheWay, { recursive: true })
    const signed = await client.ask({ op: 'sign', old_size: 0, leaves: leavesOf('b', 'c') })
    assert.equal(signed.size, 2)
    assert.equal(child.exitCode, null)
    client.close()
  })

  test('keeps key and memory when it is killed and started again', async (t) => {
    const directory = scratch(t)
    const first = await start(t, directory)
    assert.equal(readFileSync(path.join(directory, 'vkey'), 'utf8'), `${first.vkey}\n`)
    assert.equal(statSync(path.join(directory, 'vkey')).mode & 0o777, 0o644)
    const client = new SignerClient(path.join(directory, 's'))
    await client.ask({ op: 'sign', old_size: 0, leaves: leavesOf('a', 'b') })
    first.child.kill('SIGKILL')
    await once(first.child, 'exit')
    const second = await start(t, directory)
    assert.equal(second.vkey, first.vkey)
    assert.equal((await client.ask({ op: 'state' })).size, 2)
    await assert.rejects(client.ask({ op: 'sign', old_size: 0, leaves: leavesOf('x') }), {
      code: 'SIGNER_REFUSED',
    })
    client.close()
  })

  test('is one at a time on its key: a second one ends, and leaves the first its socket', async (t) => {
    const directory = scratch(t)
    await start(t, directory)
    const second = run(directory)
    afterwards(t, () => second.kill('SIGKILL'))
    let said = ''
    second.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    const first = await Promise.race([once(second, 'close'), once(second.stdout, 'data')])
    assert.equal(first[0], 1, String(first[0]))
    assert.match(said, /AUDIT_LOG_BUSY/u)
    const client = new SignerClient(path.join(directory, 's'))
    const signed = await client.ask({ op: 'sign', old_size: 0, leaves: leavesOf('a') })
    assert.equal(signed.size, 1)
    client.close()
  })

  test('does not start without knowing whom to answer', async (t) => {
    const directory = scratch(t)
    const options = { socket: 's', keys: 'keys', vkey: 'vkey', origin: ORIGIN, uid: 'root' }
    const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
    const peers = ['--peers', path.join(root, 'native/addon.ts')]
    const file = path.join(root, 'audit/signer/main.ts')
    for (const args of [flags, [...flags.slice(0, -2), ...peers], [...flags, ...peers]]) {
      const child = spawn(process.execPath, [file, ...args], { cwd: directory, stdio: 'ignore' })
      afterwards(t, () => child.kill('SIGKILL'))
      assert.deepEqual(await once(child, 'close'), [1, null])
    }
  })
})

const OWN = 64_001
const STRANGER = 64_002
const privileged = process.geteuid?.() === 0 ? false : 'not root: there is no other user to be'

/** Unlike events.once: an error before it is no failure. */
const closed = (socket: Socket): Promise<unknown> =>
  new Promise((resolve) => socket.on('error', () => undefined).once('close', resolve))

/** What comes back for a `state`, until it is an answer or the connection is closed. */
async function answerFor(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    socket.end()
  })
  socket.write(writeRequest({ op: 'state' }))
  await closed(socket)
  return Buffer.concat(chunks).toString()
}

suite('audit/signer/main and other users', { skip: privileged }, () => {
  test('answers its user and root, and closes everybody else’s connection', async (t) => {
    const directory = scratch(t)
    const { child, vkey } = await start(t, directory, OWN)
    const place = path.join(directory, 's')
    // Somebody was careless: what is left is what the kernel says of the peer.
    chmodSync(directory, 0o755)
    chmodSync(place, 0o666)
    for (const uid of [OWN, 0]) {
      assert.ok((await answerFor(connectAs(uid, place))).includes(vkey), String(uid))
    }
    // More than there are places for connections: none of them keeps one.
    for (let round = 0; round < 20; round += 1) {
      assert.equal(await answerFor(connectAs(STRANGER, place)), '')
    }
    assert.ok((await answerFor(connectAs(OWN, place))).includes(vkey))
    assert.equal(child.exitCode, null)
  })
})

/** Resident memory of a process, KiB. */
const residentOf = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/mu.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])

const FLOOD_BYTES = 64 << 20

suite('audit/signer/main and a client that does not read', () => {
  test('takes no more requests than it has answered, and closes the connection', async (t) => {
    const directory = scratch(t)
    const { child } = await start(t, directory)
    const place = path.join(directory, 's')
    const before = residentOf(child.pid ?? 0)
    const socket = connect(place)
    const request = writeRequest({ op: 'state' })
    const piece = Buffer.alloc(request.length * 1000, request)
    socket.pause()
    // What lies in the kernel's buffer, and what the signer has read.
    let taken = 0
    for (let sent = 0; sent < FLOOD_BYTES; sent += piece.length) {
      socket.write(piece, (error) => {
        taken += error instanceof Error ? 0 : piece.length
      })
    }
    await closed(socket)
    assert.ok(taken < 4 << 20, `the signer took ${taken} bytes`)
    const grown = residentOf(child.pid ?? 0) - before
    assert.ok(grown < 64 << 10, `the signer grew by ${grown} KiB`)
    const client = new SignerClient(place)
    assert.equal((await client.ask({ op: 'state' })).size, 0)
    client.close()
  })

  test('answers everything to one that reads late', async (t) => {
    const directory = scratch(t)
    await start(t, directory)
    const socket = connect(path.join(directory, 's'))
    const request = writeRequest({ op: 'state' })
    const count = 20_000
    socket.pause()
    socket.write(Buffer.alloc(count * request.length, request))
    const reader = new FrameReader()
    let answers = 0
    socket.on('data', (chunk: Buffer) => {
      answers += reader.push(chunk).length
      if (answers === count) socket.end()
    })
    socket.pause()
    // Its own state is there once the kernel takes no more: then it begins to read.
    await new Promise((resolve) => setImmediate(resolve))
    assert.ok(socket.writableLength > 0)
    socket.resume()
    await once(socket, 'close')
    assert.equal(answers, count)
  })
})
