/** The systemd units: their syntax, how exposed they leave each process, and that they agree with `casemate up` and with spawn's own filter. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { DEFAULT_RUN, DEFAULT_STATE, layoutOf } from '../../native/up/layout.ts'
import { temporary } from './temporary.ts'

const root = path.resolve(import.meta.dirname, '../..')
const ANALYZE = '/usr/bin/systemd-analyze'
const layout = layoutOf(DEFAULT_STATE, DEFAULT_RUN)

/** Highest exposure, in tenths, as `systemd-analyze security` of Debian 12 counts: 0 to 100. */
const EXPOSURE_MAX = { signer: 8, spawn: 51, agent: 19 } as const
const names = Object.keys(EXPOSURE_MAX) as (keyof typeof EXPOSURE_MAX)[]

const fileOf = (name: string): string =>
  path.join(root, `native/up/systemd/casemate-${name}.service`)
const textOf = (name: string): string => readFileSync(fileOf(name), 'utf8')

/** All values of a setting, in their order. */
const settings = (name: string, setting: string): readonly string[] =>
  textOf(name)
    .split('\n')
    .filter((line) => line.startsWith(`${setting}=`))
    .map((line) => line.slice(setting.length + 1))

function analyze(...args: readonly string[]) {
  return spawnSync(ANALYZE, args, { encoding: 'utf8', env: { SYSTEMD_COLORS: '0', LANG: 'C' } })
}

const skipped = (t: TestContext): boolean => {
  if (existsSync(ANALYZE)) return false
  t.skip(`${ANALYZE} is missing`)
  return true
}

/** Calls of systemd's groups, groups in groups included. */
function callsOf(groups: readonly string[]): ReadonlySet<string> {
  const found = new Set<string>()
  for (const group of groups) {
    const { stdout } = analyze('syscall-filter', group)
    const words = stdout
      .split('\n')
      .slice(1)
      .map((line) => line.trim())
    for (const word of words) {
      if (word.startsWith('@')) for (const call of callsOf([word])) found.add(call)
      else if (word !== '' && !word.startsWith('#')) found.add(word)
    }
  }
  return found
}

suite('native/up/systemd', () => {
  test('units are in order for systemd', (t) => {
    if (skipped(t)) return
    const directory = temporary(t)
    const files = names.map((name) => {
      const file = path.join(directory, `casemate-${name}.service`)
      // The programs are where the unit's own mounts put them, and nowhere on this machine.
      writeFileSync(file, textOf(name).replaceAll(/^ExecStart=\/run\S+/gmu, 'ExecStart=/bin/true'))
      return file
    })
    const { status, stderr } = analyze('verify', ...files)
    const ours = stderr.split('\n').filter((line) => line.includes('casemate'))
    assert.deepEqual({ status, ours }, { status: 0, ours: [] })
  })

  for (const name of names) {
    test(`casemate-${name}.service leaves no more exposed than it must`, (t) => {
      if (skipped(t)) return
      const threshold = `--threshold=${EXPOSURE_MAX[name]}`
      const { status, stdout } = analyze('security', '--offline=true', threshold, fileOf(name))
      assert.equal(
        status,
        0,
        stdout
          .split('\n')
          .filter((line) => /✗|→/u.test(line))
          .join('\n'),
      )
    })
  }

  test('processes find what `casemate up` wrote, and only what is theirs can be written', () => {
    const command = (name: string): string => settings(name, 'ExecStart')[0] ?? ''
    const signer = command('signer')
    assert.ok(command('spawn').endsWith(`/casemate-spawn --config ${layout.spawnConfig}`))
    assert.ok(
      command('agent').endsWith(`${layout.code}/agent/main.ts --config ${layout.agentConfig}`),
    )
    const flags = {
      socket: layout.signerSocket,
      keys: layout.signerState,
      vkey: layout.signerVkey,
      peers: `${layout.code}/native/addon.ts`,
    }
    for (const [flag, value] of Object.entries(flags))
      assert.ok(signer.includes(`--${flag} ${value}`), flag)
    assert.ok(signer.includes(`cat ${layout.nodeFile}`))
    for (const [name, run, state] of [
      ['signer', layout.signerRun, layout.signerState],
      ['agent', layout.agentRun, layout.agentState],
    ] as const) {
      assert.deepEqual(
        settings(name, 'RuntimeDirectory').map((place) => `/run/${place}`),
        [run],
      )
      assert.deepEqual(settings(name, 'ReadWritePaths'), [state])
      assert.deepEqual(settings(name, 'CapabilityBoundingSet'), [''])
    }
    assert.deepEqual(
      settings('spawn', 'RuntimeDirectory').map((place) => `/run/${place}`),
      [layout.spawnRun],
    )
    assert.deepEqual(
      settings('spawn', 'StateDirectory').map((place) => `/var/lib/${place}`),
      [layout.spawnState],
    )
    assert.deepEqual(
      settings('spawn', 'RuntimeDirectoryPreserve'),
      ['yes'],
      'spent tickets stay spent',
    )
    for (const name of names) {
      assert.ok((settings(name, 'BindReadOnlyPaths')[0] ?? '').endsWith(`:${layout.code}`))
      assert.deepEqual(settings(name, 'ProtectSystem'), ['strict'])
    }
  })

  test('pods outlive spawn under systemd as they do under `casemate up`', () => {
    for (const [name, setting, values] of [
      ['spawn', 'Type', ['notify']],
      ['spawn', 'NotifyAccess', ['main']],
      ['spawn', 'KillMode', ['process']],
      ['spawn', 'Restart', ['always']],
      // Those that the keeper has, and rights for all of them.
      ['spawn', 'FileDescriptorStoreMax', ['4096']],
      ['spawn', 'LimitNOFILE', ['65536']],
      // A restart of what it required would be one of the agent.
      ['agent', 'Requires', ['casemate-signer.service']],
      ['agent', 'BindsTo', []],
      ['agent', 'Wants', ['network-online.target', 'casemate-spawn.service']],
    ] as const) {
      assert.deepEqual(settings(name, setting), values, `${name} ${setting}`)
    }
    const shelf = readFileSync(path.join(root, 'native/spawn/src/keeper/shelf.rs'), 'utf8')
    assert.match(shelf, /const ENTRIES_MAX: usize = 4096;/u)
  })

  test('spawn’s unit refuses no call that spawn’s own filter permits', (t) => {
    if (skipped(t)) return
    const [filter = ''] = settings('spawn', 'SystemCallFilter')
    assert.ok(filter.startsWith('~'))
    const refused = callsOf(filter.slice(1).split(' '))
    assert.ok(refused.has('ptrace') && refused.has('init_module'))
    const table = readFileSync(path.join(root, 'native/spawn/tests/spawn/calls.txt'), 'utf8')
    const rows = [...table.matchAll(/^ +\d+ +(\S+) +(\S+) /gmu)]
    const permitted = rows
      .filter(([, , word = '']) => word.includes('yes'))
      .map(([, call = '']) => call)
    assert.ok(permitted.length > 100)
    assert.deepEqual(
      permitted.filter((call) => refused.has(call)),
      [],
    )
  })
})
