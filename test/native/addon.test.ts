/** The addon: descriptors really pass, seals really hold, paths really stay beneath. */
import assert from 'node:assert/strict'
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { connect as connectTo, createServer } from 'node:net'
import path from 'node:path'
import { suite, test } from 'node:test'
import {
  duplicate,
  exchange,
  memfdSealed,
  openBeneath,
  peerOf,
  pidfdOpen,
  pipe,
} from '../../native/addon.ts'
import { fdPeer, frameOf } from './fd-answer.ts'
import { temporary } from './temporary.ts'

/** fcntl.h; Node does not name it. */
const O_CLOEXEC = 0o2000000
const limits = { answerMax: 65_536, fdsMax: 4, timeoutMs: 10_000, keepOpen: false }
const openDescriptors = (): number => readdirSync('/proc/self/fd').length

suite('native/addon exchange', () => {
  test('passes descriptors in both directions, close-on-exec', async (t) => {
    const directory = temporary(t)
    const peer = await fdPeer(directory, frameOf({ ok: true }), 2)
    const sent = memfdSealed('sent', Buffer.from('from us'))
    const before = openDescriptors()
    const { answer, fds, connection } = await exchange(
      peer.path,
      frameOf({ op: 'x' }),
      [sent],
      limits,
    )
    assert.equal(answer.toString(), '{"ok":true}')
    assert.equal(await peer.heard, '1 from us')
    assert.equal(connection, -1)
    assert.equal(fds.length, 2)
    for (const fd of fds) {
      const flags = /flags:\s+([0-7]+)/u.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
      assert.notEqual(Number.parseInt(flags ?? '0', 8) & O_CLOEXEC, 0)
      closeSync(fd)
    }
    // The peer has ended, and its pipe with it.
    assert.ok(openDescriptors() <= before)
    closeSync(sent)
  })

  test('closes what came when there is more than was agreed', async (t) => {
    const directory = temporary(t)
    const peer = await fdPeer(directory, frameOf({ ok: true }), 3)
    const before = openDescriptors()
    const asked = exchange(peer.path, frameOf({ op: 'x' }), [], { ...limits, fdsMax: 1 })
    await assert.rejects(asked, { code: 'EOVERFLOW' })
    // Three came; what an earlier test has open may go meanwhile.
    assert.ok(openDescriptors() <= before)
  })

  test('says what went wrong by the errno’s name', async (t) => {
    const directory = temporary(t)
    const nobody = exchange(path.join(directory, 'nobody'), frameOf({ a: 1 }), [], limits)
    await assert.rejects(nobody, { code: 'ENOENT', syscall: 'connect' })
    const long = exchange('/x'.repeat(100), frameOf({ a: 1 }), [], limits)
    await assert.rejects(long, { code: 'ENAMETOOLONG' })
    assert.throws(() => exchange('/x', frameOf({ a: 1 }), [-1], limits), /descriptor/u)
  })

  test('waits for a silent peer no longer than it was told to', async (t) => {
    const socket = path.join(temporary(t), 'silent.sock')
    const server = createServer(() => undefined).listen(socket)
    t.after(() => server.close())
    const asked = exchange(socket, frameOf({ a: 1 }), [], { ...limits, timeoutMs: 50 })
    await assert.rejects(asked, { code: 'ETIMEDOUT' })
  })
})

suite('native/addon files', () => {
  test('a sealed memfd can be read and never written, by nobody', () => {
    const fd = memfdSealed('test', Buffer.from('fixed'))
    assert.equal(readFileSync(`/proc/self/fd/${fd}`, 'utf8'), 'fixed')
    assert.throws(() => writeSync(fd, 'x'), { code: 'EPERM' })
    assert.throws(() => writeFileSync(`/proc/self/fd/${fd}`, 'x'), { code: 'EPERM' })
    closeSync(fd)
  })

  test('openBeneath follows no link and leaves its directory by no way', (t) => {
    const directory = temporary(t)
    mkdirSync(path.join(directory, 'in'))
    writeFileSync(path.join(directory, 'in/file'), 'inside')
    writeFileSync(path.join(directory, 'outside'), 'outside')
    symlinkSync('file', path.join(directory, 'in/link'))
    symlinkSync('/etc', path.join(directory, 'in/away'))
    const fd = openSync(path.join(directory, 'in'), constants.O_RDONLY | constants.O_DIRECTORY)
    const inside = openBeneath(fd, 'file', constants.O_RDONLY, 0)
    assert.equal(readFileSync(inside, 'utf8'), 'inside')
    closeSync(inside)
    for (const bad of ['../outside', '/etc/passwd', 'link', 'away/passwd', '.././in/file']) {
      assert.throws(() => openBeneath(fd, bad, constants.O_RDONLY, 0), /EXDEV|ELOOP|openat2/u, bad)
    }
    assert.throws(() => openBeneath(fd, 'fi\0le', 0, 0), TypeError)
    closeSync(fd)
  })

  test('pidfd, duplicate and pipe give descriptors that are what they say', () => {
    const self = pidfdOpen(process.pid)
    assert.match(
      readFileSync(`/proc/self/fdinfo/${self}`, 'utf8'),
      new RegExp(`Pid:\\s+${process.pid}`, 'u'),
    )
    assert.throws(() => pidfdOpen(2 ** 22 + 1), { code: /ESRCH|EINVAL/u })
    const ends = pipe()
    const copy = duplicate(ends.write)
    writeSync(copy, 'through')
    closeSync(copy)
    closeSync(ends.write)
    assert.equal(readFileSync(ends.read, 'utf8'), 'through')
    for (const fd of [self, ends.read]) closeSync(fd)
  })

  test('peerOf names the process at the other end, and nobody for a socket that is closed', async (t) => {
    const socket = path.join(temporary(t), 'peer.sock')
    const seen = await new Promise((resolve) => {
      const server = createServer((connection) => {
        resolve(peerOf(connection))
        connection.destroy()
        assert.throws(() => peerOf(connection), /no descriptor/u)
        server.close()
      }).listen(socket, () => connectTo(socket).on('error', () => undefined))
    })
    assert.deepEqual(seen, { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() })
  })
})
