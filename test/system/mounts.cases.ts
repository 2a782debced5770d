/** What is mounted in a pod beside its image, and what of the kernel is its own. One pod of a kind, as each costs a start. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { sealFiles } from '../../agent/tasks/launch-files.ts'
import { FILE_BYTES_MAX, parseHostPathName, parseMountPath, SYSCTLS } from '../../policy/index.ts'
import type { PlannedMount } from '../../policy/plan.ts'
import type { Machine } from './harness.ts'
import { type Ended, papers, prepare, refusal, run, sh, submit } from './launch.ts'
import { foundFile } from './words.ts'

const tmpfs = (path: string, changes: object = {}): PlannedMount => ({
  kind: 'tmpfs',
  path,
  size: 65_536,
  mode: 0o1777,
  exec: true,
  readOnly: false,
  ...changes,
})
const empty = (path: string, mode = 0o1777): PlannedMount => ({
  kind: 'empty',
  path: parseMountPath(path),
  mode,
})

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Files below a directory that have the text in them. */
function holding(directory: string, text: string): readonly string[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' })
  return names
    .map((name) => join(directory, name))
    .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile() === true)
    .filter((file) => readFileSync(file).includes(text))
}

const fileAt = (at: string, file: number, size: number, mode = 0o444): PlannedMount => ({
  kind: 'file',
  path: parseMountPath(at),
  mode,
  uid: 0,
  gid: 1001,
  size,
  file,
})

/** Another value for each parameter than a kernel begins with. */
const OTHER_VALUES = {
  'fs.mqueue.msg_default': '9',
  'fs.mqueue.msg_max': '9',
  'fs.mqueue.msgsize_default': '8191',
  'fs.mqueue.msgsize_max': '8191',
  'fs.mqueue.queues_max': '7',
  'kernel.msgmax': '8193',
  'kernel.msgmnb': '16385',
  'kernel.msgmni': '31999',
  'kernel.sem': '250 32000 32 100',
  'kernel.shm_rmid_forced': '1',
  'kernel.shmall': '4097',
  'kernel.shmmax': '4097',
  'kernel.shmmni': '77',
  'net.core.somaxconn': '77',
  'net.ipv4.ip_local_port_range': '40000 40999',
  'net.ipv4.ip_local_reserved_ports': '40001',
  'net.ipv4.ip_unprivileged_port_start': '77',
  'net.ipv4.ping_group_range': '0 42',
  'net.ipv4.tcp_fin_timeout': '59',
  'net.ipv4.tcp_keepalive_intvl': '74',
  'net.ipv4.tcp_keepalive_probes': '8',
  'net.ipv4.tcp_keepalive_time': '7199',
  'net.ipv4.tcp_max_syn_backlog': '77',
  'net.ipv4.tcp_rmem': '4096 131073 6291457',
  'net.ipv4.tcp_syn_retries': '5',
  'net.ipv4.tcp_syncookies': '2',
  'net.ipv4.tcp_tw_reuse': '0',
  'net.ipv4.tcp_wmem': '4096 16385 4194305',
  'net.ipv6.conf.all.disable_ipv6': '1',
  'net.unix.max_dgram_qlen': '11',
}

/** Tries and looks, with one program beside the shell: such files are read as a whole or not at all. */
const BUILTINS = `
put() { if echo x > "$1/key"; then echo "put:$1/key ok"; else echo "put:$1/key no"; fi; }
read -r key < /run/secrets/key
set -- $(cat /proc/sys/kernel/shmmni /proc/sys/net/core/somaxconn)
echo "found $key $1 $2" /data/*
{ for at in "" /data /deep/memory /deep/memory/disk /home /locked /run/secrets; do put "$at"; done; } 2>/dev/null
while read -r line; do echo "mount $line"; done < /proc/self/mountinfo
`

/** Functions for what is tried in a pod: a line each, name and outcome. */
const TRIES = `
b=/bin/busybox
try() { name=$1; shift; if "$@" 2>/dev/null; then echo "$name ok"; else echo "$name no"; fi; }
options() { while read _ _ _ _ point rest; do [ "$point" = "$1" ] && found=$rest; done < /proc/self/mountinfo; echo "at:$1 $found"; }
mode() { echo "mode:$1 $($b stat -c '%a %u:%g' $1)"; }
fill() { $b dd if=/dev/zero of=$1 bs=4096 count=4096 2>/dev/null; echo "bytes:$1 $($b stat -c %s $1)"; }
`

const lines = ({ stdout }: Ended): ReadonlyMap<string, string> =>
  new Map(
    stdout.split('\n').map((line) => {
      const at = line.indexOf(' ')
      return [line.slice(0, at), line.slice(at + 1)] as const
    }),
  )
const told = ({ exit, notes }: Ended): string => `${exit.how} ${exit.value} ${exit.cause} ${notes}`

export function mountCases(machine: Machine): void {
  /** Where parameters of the kernel are the host's. */
  const isHost = machine.level === 'host'

  suite('system/mounts', { concurrency: 1 }, () => {
    test('mounts memory, directories of the disk and files, and sets what is the pod’s own', async () => {
      const ended = await run(machine, {
        args: sh(BUILTINS),
        readOnlyRoot: true,
        mounts: [
          empty('/data', 0o700),
          tmpfs('/deep/memory', { exec: false }),
          empty('/deep/memory/disk'),
          { kind: 'image', path: parseMountPath('/home') },
          tmpfs('/locked', { readOnly: true }),
          fileAt('/run/secrets/key', 0, 3),
        ],
        files: [Buffer.from('key')],
        sysctls: isHost
          ? []
          : [
              { name: 'kernel.shmmni', value: '77' },
              { name: 'net.core.somaxconn', value: '77' },
            ],
      })
      assert.match(told(ended), /^code 0 APP_EXIT/u)
      const found = lines(ended)
      for (const [place, outcome] of [
        ...['/data', '/deep/memory', '/deep/memory/disk', '/home'].map((at) => [at, 'ok']),
        ...['', '/locked', '/run/secrets'].map((at) => [at, 'no']),
      ]) {
        assert.equal(found.get(`put:${place ?? ''}/key`), outcome, place)
      }
      if (!isHost) assert.equal(found.get('found'), 'key 77 77 /data/*')
      for (const [place = '', form = ''] of [
        ['/data', ' rw,nosuid,nodev,.* ext4 '],
        ['/deep/memory', ' rw,nosuid,nodev,noexec.* tmpfs .*size=64k'],
        ['/locked', ' ro,nosuid,nodev.* tmpfs '],
        ['/run/secrets/key', ' ro,nosuid,nodev,noexec.* tmpfs '],
      ]) {
        assert.match(ended.stdout, new RegExp(`^mount .* ${place}${form}`, 'mu'))
      }
    })

    test('starts nothing with other files than the spec names', async () => {
      const wish = {
        args: sh('exit 0'),
        mounts: [fileAt('/run/secrets/key', 0, 3)],
        files: [Buffer.from('key')],
      }
      const prepared = await prepare(machine, wish)
      const others = await sealFiles(prepared.plan, [foundFile(Buffer.from('KEY'))])
      assert.ok(others !== null)
      const stolen = await submit({ ...prepared, files: others }, await papers(machine, prepared))
      const { exit } = await stolen.end()
      assert.equal(`${exit.how} ${exit.cause}`, 'failure DESCRIPTOR')
      assert.match(exit.text ?? '', /files: is not the file the spec names/u)
      const none = await refusal({ ...prepared, files: null }, await papers(machine, prepared))
      assert.equal(none, 'DESCRIPTORS')
      const plain = await prepare(machine, { args: sh('exit 0') })
      const extra = await refusal({ ...plain, files: others }, await papers(machine, plain))
      assert.equal(extra, 'DESCRIPTORS')
    })

    test('has no path of the host but in a container, and there none that root does not list', async () => {
      const common = {
        kind: 'host',
        readOnly: true,
        subPath: null,
        ids: null,
        exec: false,
      } as const
      const mount = { ...common, path: parseMountPath('/x'), name: parseHostPathName('etc') }
      const prepared = await prepare(machine, { args: sh('exit 0'), mounts: [mount] })
      const code = machine.level === 'container' ? 'HOST_PATH_UNKNOWN' : 'SPEC_MALFORMED'
      assert.equal(await refusal(prepared, await papers(machine, prepared)), code)
    })

    // The same code at both levels. A program takes a second to start where KVM is software, and these start dozens.
    if (machine.level === 'container') broadCases(machine)
  })
}

/** What the same mounts do to each program that comes across them. */
function broadCases(machine: Machine): void {
  test('mounts memory and empty directories, of the size and mode that were asked for, and no more', async () => {
    const ended = await run(machine, {
      args: sh(`${TRIES}
        for at in /deep/memory /locked /data /deep/memory/disk /dev/shm; do options $at; mode $at; done
        fill /deep/memory/file; fill /dev/shm/file
        try disk $b dd if=/dev/zero of=/deep/memory/disk/file bs=1048576 count=8
        try locked $b touch /locked/file
        echo "data $(echo /data/*)"
        try root $b touch /new
        echo 'echo started' > /data/program; $b chmod 755 /data/program; try program /data/program
        for number in $($b seq 1100); do true > /deep/memory/f$number || break; done 2>/dev/null
        echo "files $($b ls /deep/memory | $b wc -l)"
        try remount $b mount -o remount,bind,rw /locked`),
      readOnlyRoot: true,
      mounts: [
        empty('/data', 0o700),
        tmpfs('/deep/memory', { mode: 0o750, exec: false }),
        empty('/deep/memory/disk'),
        tmpfs('/dev/shm', { size: 8192, exec: false }),
        tmpfs('/locked', { readOnly: true }),
      ],
    })
    assert.match(told(ended), /^code \d+ APP_EXIT/u)
    const found = lines(ended)
    for (const at of ['/deep/memory', '/dev/shm']) {
      assert.match(found.get(`at:${at}`) ?? '', /^rw,nosuid,nodev,noexec.* tmpfs /u, at)
    }
    assert.match(found.get('at:/locked') ?? '', /^ro,nosuid,nodev.* tmpfs /u)
    for (const at of ['/data', '/deep/memory/disk']) {
      assert.match(found.get(`at:${at}`) ?? '', /^rw,nosuid,nodev.* ext4 /u, at)
    }
    const modes = ['/data 700', '/deep/memory 750', '/deep/memory/disk 1777', '/dev/shm 1777']
    for (const [at = '', mode = ''] of modes.map((text) => text.split(' '))) {
      assert.equal(found.get(`mode:${at}`), `${mode} 0:0`, at)
    }
    assert.equal(found.get('bytes:/deep/memory/file'), '65536')
    assert.equal(found.get('bytes:/dev/shm/file'), '8192')
    const tried = ['disk', 'locked', 'root', 'program', 'remount'].map((name) => found.get(name))
    assert.deepEqual(tried, ['ok', 'no', 'no', 'ok', 'no'])
    assert.equal(found.get('data'), '/data/*')
    assert.ok(Number(found.get('files')) <= 1024, 'a small one has no room for many files')
  })

  test('keeps what the image has where it says that it is written, and follows no link of the image', async () => {
    const kept = await run(machine, {
      args: sh(`${TRIES}
        try data $b touch /data/new; try root $b touch /new; echo "text $($b cat /data/text)"`),
      readOnlyRoot: true,
      mounts: [{ kind: 'image', path: parseMountPath('/data') }],
    })
    const found = lines(kept)
    const outcome = ['data', 'root', 'text'].map((name) => found.get(name))
    assert.deepEqual(outcome, ['ok', 'no', 'no program'], kept.notes)
    for (const mount of [tmpfs('/away'), empty('/away/x'), tmpfs('/bin/sh/x')]) {
      // oxlint-disable-next-line no-await-in-loop -- one pod after the other
      const { exit } = await run(machine, { args: sh('exit 0'), mounts: [mount] })
      assert.equal(`${exit.how} ${exit.cause}`, 'failure APP_START', mount.path)
      assert.match(exit.text ?? '', /^APP_MOUNT: .*a link or a file on the way/u)
    }
  })

  test('sets each parameter that may be set, of the pod’s own namespaces and none of the host’s', async () => {
    const fileOf = (name: string): string => `/proc/sys/${name.replaceAll('.', '/')}`
    assert.deepEqual(Object.keys(OTHER_VALUES), Object.keys(SYSCTLS))
    const known = Object.entries(OTHER_VALUES).filter(([name]) => existsSync(fileOf(name)))
    const names = known.map(([name]) => name)
    const read = (): readonly string[] => names.map((name) => readFileSync(fileOf(name), 'utf8'))
    const before = read()
    const ended = await run(machine, {
      args: sh(names.map((name) => `echo ${name} $(cat ${fileOf(name)})`).join('\n')),
      sysctls: known.map(([name, value]) => ({ name, value })),
    })
    assert.match(told(ended), /^code 0 APP_EXIT/u)
    assert.deepEqual(Object.fromEntries(lines(ended)), { ...Object.fromEntries(known), '': '' })
    assert.deepEqual(read(), before)
    for (const [at, value] of before.entries()) {
      assert.notEqual(
        value.trim().replaceAll('\t', ' '),
        known[at]?.[1],
        `${names[at]} was so before`,
      )
    }
  })

  test('gives files in memory that nobody can write, remove, move or remount', async () => {
    const secret = randomBytes(24).toString('hex')
    const large = randomBytes(FILE_BYTES_MAX)
    const wish = {
      args: sh(`${TRIES}
        for at in /data/text /run/secrets/key; do options $at; mode $at; done
        echo "key $($b sha256sum < /run/secrets/key)"; echo "large $($b sha256sum /data/large)"
        for at in /run/secrets/key /data/text; do
          try "write:$at" eval "echo x > $at"
          try "remove:$at" $b rm -f $at
          try "move:$at" $b mv $at /tmp/moved
          try "remount:$at" $b mount -o remount,bind,rw $at
        done
        echo "left $($b ls -A /dev)"`),
      capabilities: ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_MKNOD'],
      mounts: [
        fileAt('/data/large', 1, large.length, 0o400),
        fileAt('/data/text', 0, 5),
        fileAt('/run/secrets/key', 2, secret.length, 0o440),
      ],
      files: [Buffer.from('hello'), large, Buffer.from(secret)],
    } as const
    const ended = await run(machine, wish)
    assert.match(told(ended), /^code 0 APP_EXIT/u)
    const found = lines(ended)
    for (const [path, mode] of [
      ['/data/text', '444'],
      ['/run/secrets/key', '440'],
    ] as const) {
      assert.equal(found.get(`mode:${path}`), `${mode} 0:1001`)
      assert.match(found.get(`at:${path}`) ?? '', /^ro,nosuid,nodev,noexec.* tmpfs /u)
      for (const what of ['write', 'remove', 'move', 'remount']) {
        assert.equal(found.get(`${what}:${path}`), 'no', `${what} ${path}`)
      }
    }
    assert.equal(found.get('key'), `${sha256(Buffer.from(secret))}  -`)
    assert.equal(found.get('large'), `${sha256(large)}  /data/large`)
    assert.doesNotMatch(found.get('left') ?? '', /\.files/u)
    assert.deepEqual(holding(machine.place('.'), secret), [], 'nothing on disk has it')
  })
}
