/**
 * Paths of the host in containers: live, by root's list alone, and no way to anything else of the host. They are tried as
 * by a tenant, as by root inside with every capability there is, and as by an agent that was taken over.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { after, before, suite, test } from 'node:test'
import {
  CAPABILITIES,
  parseHostPathName,
  parseMountPath,
  parseSubPath,
} from '../../policy/index.ts'
import type { PlannedMount } from '../../policy/plan.ts'
import { type Machine, type SpawnHost, TENANT } from './harness.ts'
import { type Ended, papers, prepare, probe, refusal, run, sh, start, submit } from './launch.ts'

/** Of nobody on the host. */
const IDS = 3_000_000
const told = ({ exit, notes, stderr }: Ended): string => `${exit.text} ${notes} ${stderr}`

type HostMount = Extract<PlannedMount, { kind: 'host' }>

const mountHost = (name: string, changes: Partial<HostMount> = {}): HostMount => ({
  kind: 'host',
  name: parseHostPathName(name),
  path: parseMountPath('/x'),
  readOnly: true,
  subPath: null,
  ids: null,
  exec: false,
  ...changes,
})
const written = (changes: Partial<HostMount> = {}): HostMount =>
  mountHost('data', { readOnly: false, ids: IDS, ...changes })
const below = (subPath: string): Partial<HostMount> => ({ subPath: parseSubPath(subPath) })

/** What the operator has on this host; every directory above it is root's alone. */
function furnish(place: string): object {
  chmodSync(place, 0o755)
  const at = (name: string): string => path.join(place, name)
  for (const name of ['models', 'models/sub', 'models/private', 'data', 'loose', 'loose/data']) {
    mkdirSync(at(name))
  }
  writeFileSync(at('models/all'), 'for all\n')
  writeFileSync(at('models/root'), 'for root\n', { mode: 0o600 })
  writeFileSync(at('models/sub/file'), 'sub\n')
  writeFileSync(at('models/program'), '#!/bin/sh\necho ran\n', { mode: 0o755 })
  writeFileSync(at('models/open'), '', { mode: 0o666 })
  chmodSync(at('models/open'), 0o666)
  chmodSync(at('models/private'), 0o700)
  writeFileSync(at('outside'), 'of the host\n')
  symlinkSync(at('outside'), at('models/link'))
  symlinkSync('/proc/self/root/etc', at('models/magic'))
  chmodSync(at('loose'), 0o777)
  chownSync(at('data'), IDS, IDS)
  const entry = { exec: false, ids: null, kind: 'directory', tenants: [TENANT] }
  return {
    models: { ...entry, path: at('models') },
    'models-exec': { ...entry, path: at('models'), exec: true },
    file: { ...entry, path: at('models/all'), kind: 'file' },
    data: { ...entry, path: at('data'), ids: IDS },
    foreign: { ...entry, path: at('models'), tenants: ['other'] },
    loose: { ...entry, path: at('loose/data') },
    gone: { ...entry, path: at('nothing') },
  }
}

export function hostPathCases(machine: Machine): void {
  suite('system/host paths', { concurrency: 1 }, () => {
    let place = ''
    let on: SpawnHost
    before(async () => {
      place = mkdtempSync('/run/casemate-host-paths-')
      // As on hosts whose mounts spread from one namespace to the next.
      execFileSync('mount', ['--bind', place, place])
      execFileSync('mount', ['--make-shared', place])
      on = await machine.another('host-paths', { host_paths: furnish(place) })
    })
    after(() => {
      execFileSync('umount', ['--lazy', place])
      rmSync(place, { recursive: true })
    })
    const at = (name: string): string => path.join(place, name)
    const mounted = async (mounts: readonly HostMount[], script: string, wish = {}) =>
      await run(machine, { args: sh(script), mounts, on, ...wish })

    test('shares a directory and a file live, to be read by what everybody may read', async () => {
      const running = await start(machine, {
        args: sh(`cat /x/all /x/sub/file /f /s/file; (cat /x/root) 2>&1; (ls /x/private) 2>&1
          (echo > /x/open) 2>&1; (echo > /f) 2>&1; (/x/program) 2>&1; (cat /x/link) 2>&1; /e/program
          /bin/busybox stat -c '%u:%g' /x/all
          grep ' /x ' /proc/self/mountinfo; echo up; read line; cat /x/later`),
        mounts: [
          mountHost('models-exec', { path: parseMountPath('/e'), exec: true }),
          mountHost('file', { path: parseMountPath('/f') }),
          mountHost('models', { path: parseMountPath('/s'), ...below('sub') }),
          mountHost('models'),
        ],
        on,
      })
      const said = await running.says(/up/u)
      const lines = said.split('\n')
      assert.deepEqual(lines.slice(0, 4), ['for all', 'sub', 'for all', 'sub'])
      assert.deepEqual(
        lines.slice(4, 10).map((line) => /: ([^:]+)$/u.exec(line)?.[1]),
        [
          'Permission denied',
          'Permission denied',
          'Read-only file system',
          'Read-only file system',
          'Permission denied',
          'No such file or directory',
        ],
        said,
      )
      assert.deepEqual(lines.slice(10, 12), ['ran', '65534:65534'])
      assert.match(lines[12] ?? '', / ro,nosuid,nodev,noexec,relatime,idmapped - /u)
      writeFileSync(at('models/later'), 'later\n')
      running.stream.stdin(Buffer.from('\n'))
      assert.match((await running.end()).stdout, /\nlater\n$/u)
    })

    test('what cannot be written stays so for root inside with every capability', async () => {
      const server = createServer().listen(at('models/socket'))
      await new Promise((resolve) => server.once('listening', resolve))
      chmodSync(at('models/socket'), 0o777)
      chmodSync(at('models'), 0o777)
      const ended = await mounted(
        [mountHost('models')],
        `b=/bin/busybox; $b mount -o remount,bind,rw,suid,dev,exec /x; grep -o '/x rw,[^o-]*' /proc/self/mountinfo
        for do in 'echo >' '$b touch /x/new;:' '$b rm' '$b chmod 777' '$b mv /x/sub'; do (eval "$do /x/open") 2>&1; done
        (cat /x/root) 2>&1; /bin/probe reach /x/socket
        $b mount -t tmpfs inside /x/sub && echo mounted`,
        { capabilities: CAPABILITIES },
      )
      server.close()
      chmodSync(at('models'), 0o755)
      const lines = ended.stdout.trim().split('\n')
      // Flags of its own mounts are its own to change, and do not help it.
      assert.equal(lines[0], '/x rw,relatime,idmapped ', told(ended))
      assert.equal(lines.length, 9, ended.stdout)
      for (const line of lines.slice(1, 8)) {
        assert.match(line, /Permission denied|EACCES|Value too large/u, ended.stdout)
      }
      assert.equal(lines[8], 'mounted', 'in its own view')
      assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes('- tmpfs inside '))
      assert.ok(!existsSync(at('models/new')) && existsSync(at('models/open')))
      assert.equal(statSync(at('models/open')).mode & 0o777, 0o666)
    })

    test('a file beside what is shared, on the same file system, is not opened by its handle', async () => {
      const handleOf = (name: string): string => {
        const said = execFileSync(machine.place('probe'), ['handle', at(name)], {
          encoding: 'utf8',
        })
        return /^handle ([0-9a-f]{16,})$/mu.exec(said)?.[1] ?? assert.fail(said)
      }
      for (const mount of [mountHost('models'), written()]) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const ended = await run(machine, {
          args: probe('grab', handleOf('outside'), 'grab', handleOf('models/root')),
          capabilities: CAPABILITIES,
          mounts: [mount],
          on,
        })
        assert.match(ended.stdout, /^(?:grab \/x E[A-Z]+\n){2}$/u, told(ended))
      }
    })

    test('what is written belongs to nobody of the host, and the next pod has it as it was', async () => {
      const first = await mounted(
        [written()],
        `b=/bin/busybox; echo kept > /x/file; $b chown 7:8 /x/file; $b cp /bin/busybox /x/tool; $b chmod 6755 /x/tool
        $b mkfifo /x/fifo; ($b mknod /x/device c 1 3) 2>&1; $b mkdir -p /x/a/b; $b ln -s /etc /x/etc; ls -ln /x/file`,
      )
      assert.match(first.stdout, /Operation not permitted\n.* 7 +8 /u, told(first))
      const owner = (name: string): string => {
        const { uid, gid } = statSync(at(`data/${name}`))
        return `${uid - IDS}:${gid - IDS}`
      }
      assert.deepEqual([owner('file'), owner('tool')], ['7:8', '0:0'])
      writeFileSync(at('data/roots'), 'of root\n', { mode: 0o666 })
      chmodSync(at('data/roots'), 0o666)
      const next = await mounted(
        [written(), written({ path: parseMountPath('/r'), readOnly: true, ...below('a') })],
        `/bin/busybox stat -c '%u:%g' /x/file; cat /x/file; (echo > /x/roots) 2>&1; (/x/tool) 2>&1; (echo > /r/b/c) 2>&1`,
      )
      assert.match(next.stdout, /^7:8\nkept\n/u, told(next))
      const refused = next.stdout.trim().split('\n').slice(2)
      assert.deepEqual(
        refused.map((line) => /: ([^:]+)$/u.exec(line)?.[1]),
        ['Permission denied', 'Permission denied', 'Read-only file system'],
      )
      assert.equal(readFileSync(at('data/roots'), 'utf8'), 'of root\n')
    })

    test('leads by no link, no file and no closed directory, and to nothing of another tenant', async () => {
      const codeOf = async (mount: HostMount, tenant = TENANT): Promise<string> => {
        const prepared = await prepare(machine, { args: sh('exit 0'), mounts: [mount], on, tenant })
        return await refusal(prepared, await papers(machine, prepared))
      }
      const codes: readonly (readonly [HostMount, string])[] = [
        [mountHost('models', below('link')), 'HOST_PATH_UNSAFE'],
        [mountHost('models', below('magic')), 'HOST_PATH_UNSAFE'],
        [mountHost('models', below('magic/shadow')), 'HOST_PATH_MISSING'],
        [mountHost('models', below('all/x')), 'HOST_PATH_MISSING'],
        [mountHost('models', below('private/x')), 'HOST_PATH_MISSING'],
        [mountHost('models', below('nothing')), 'HOST_PATH_MISSING'],
        [written(below('etc')), 'HOST_PATH_UNSAFE'],
        [written(below('etc/ssl')), 'HOST_PATH_MISSING'],
        [written(below('fifo')), 'HOST_PATH_UNSAFE'],
        [mountHost('gone'), 'HOST_PATH_MISSING'],
        [mountHost('loose'), 'HOST_PATH_UNSAFE'],
        [mountHost('foreign'), 'HOST_PATH_UNKNOWN'],
        [mountHost('unheard'), 'HOST_PATH_UNKNOWN'],
        [mountHost('file', below('x')), 'HOST_PATH_CHANGED'],
        // What an agent that was taken over would rather have.
        [mountHost('models', { readOnly: false, ids: IDS }), 'HOST_PATH_CHANGED'],
        [mountHost('models', { exec: true }), 'HOST_PATH_CHANGED'],
        [written({ ids: 65_536 }), 'HOST_PATH_CHANGED'],
      ]
      for (const [mount, code] of codes) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        assert.equal(await codeOf(mount), code, JSON.stringify(mount))
      }
      assert.equal(await codeOf(mountHost('models'), 'other'), 'HOST_PATH_UNKNOWN')
      const odd: readonly object[] = [
        { ids: null },
        { ids: 0 },
        { sub_path: '../outside' },
        { sub_path: '/etc' },
        { name: '../models' },
      ]
      for (const bent of odd) {
        // oxlint-disable-next-line no-await-in-loop -- likewise
        const malformed = await prepare(
          machine,
          { args: sh('exit 0'), mounts: [written()], on },
          (spec) => void Object.assign(Object(spec['apps'])[0].mounts[0], bent),
        )
        // oxlint-disable-next-line no-await-in-loop -- likewise
        const code = await refusal(malformed, await papers(machine, malformed))
        assert.equal(code, 'SPEC_MALFORMED', JSON.stringify(bent))
      }
    })

    test('an entry that was taken off the list after the decision is none', async () => {
      const prepared = await prepare(machine, {
        args: sh('exit 0'),
        mounts: [mountHost('models')],
        on,
      })
      const without = await machine.another('no-host-paths', {})
      const moved = { ...prepared, on: without }
      assert.equal(await refusal(moved, await papers(machine, moved)), 'HOST_PATH_UNKNOWN')
      const given = await papers(machine, prepared)
      assert.equal((await (await submit(prepared, given)).end()).exit.value, 0)
    })

    test('a place on a file system that maps no ids is not shared', async () => {
      const proc = await machine.another('unmapped', {
        host_paths: {
          proc: {
            exec: false,
            ids: null,
            kind: 'directory',
            path: '/proc/sys',
            tenants: [TENANT],
          },
        },
      })
      const { exit } = await run(machine, {
        args: sh('exit 0'),
        mounts: [mountHost('proc')],
        on: proc,
      })
      assert.equal(`${exit.how} ${exit.cause}`, 'failure HOST_PATH')
      assert.match(exit.text ?? '', /^path proc of the host is on a file system that takes no map/u)
    })
  })
}
