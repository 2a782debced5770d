/** What `casemate up` writes into the files of spawn and agent, and what of an operator's it keeps. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { suite, type TestContext, test } from 'node:test'
import { parseConfig } from '../../agent/config.ts'
import {
  type ConfigurationParts,
  type Settings,
  writeConfiguration,
} from '../../native/up/configuration.ts'
import { type Layout, layoutOf } from '../../native/up/layout.ts'
import { temporary } from './temporary.ts'

const FLOOR = '{"schemaVersion":1,"default":"deny","rules":[]}'

interface Host {
  readonly layout: Layout
  readonly start: (settings?: Partial<Settings>) => void
}

function hostOf(t: TestContext): Host {
  const directory = temporary(t)
  const layout = layoutOf(`${directory}/state`, `${directory}/run`)
  mkdirSync(layout.conf, { recursive: true })
  const account = { uid: 999, gid: 999 }
  const parts: Omit<ConfigurationParts, 'settings'> = {
    layout,
    accounts: { agent: account, signer: account, worker: account },
    artifacts: {
      spawn: '/spawn',
      vmm: '/vmm',
      container: '/container',
      kernel: '/kernel',
      init: '/init',
      initVerity: { data_blocks: 1, root: '00', salt: '00' },
      scratch: { blocks: 'sha256:0', path: '/scratch', size: 4096 },
      volume: { blocks: 'sha256:0', path: '/volume', size: 4096 },
      hello: {
        path: '/hello',
        size: 8192,
        verity: { data_blocks: 1, root: '00', salt: '00' },
      },
      attack: '/attack',
      templates: '/templates',
    },
    node: 'host-1',
    vkey: 'key',
    nodeProgram: '/node',
  }
  const start: Host['start'] = (settings = {}) => {
    writeConfiguration({ ...parts, settings: { allowSoftwareKvm: false, ...settings } })
  }
  return { layout, start }
}

const membersOf = (file: string): Record<string, unknown> => JSON.parse(readFileSync(file, 'utf8'))

/** As an editor leaves it: any white space, any order. */
function edit(file: string, change: Record<string, unknown>): void {
  const members = Object.entries({ ...change, ...membersOf(file), ...change })
  writeFileSync(file, `${JSON.stringify(Object.fromEntries(members), null, 4)}\n\n`)
}

suite('native/up/configuration', () => {
  test('begins with defaults that the agent takes', (t) => {
    const { layout, start } = hostOf(t)
    start()
    const config = parseConfig(readFileSync(layout.agentConfig))
    assert.equal(config.httpsPort, 8443)
    assert.equal(config.requestsPerMinute, 1200)
    assert.equal(config.imageFloor, null)
    assert.deepEqual([config.operators, config.registries], [[], []])
  })

  test('keeps what an operator wrote, through every start', (t) => {
    const { layout, start } = hostOf(t)
    start({ httpsPort: 9000, operators: [1], insecureRegistries: ['127.0.0.1:1'] })
    const agent = {
      image_floor: FLOOR,
      requests_per_minute: 77,
      operators: [1000, 1001],
      registries: [{ host: 'registry.internal:5000', insecure: false }],
      https_port: 9443,
    }
    const entry = { exec: false, ids: null, kind: 'directory', path: '/srv', tenants: ['acme'] }
    const spawn = {
      levels: { acme: ['container'] },
      host_paths: { data: entry },
      vm_uid_base: 3_000_000,
      vm_uid_count: 10,
    }
    edit(layout.agentConfig, agent)
    edit(layout.spawnConfig, spawn)
    for (let starts = 0; starts < 2; starts += 1) {
      start()
      assert.deepEqual(
        { ...membersOf(layout.agentConfig), ...agent },
        membersOf(layout.agentConfig),
      )
      assert.deepEqual(
        { ...membersOf(layout.spawnConfig), ...spawn },
        membersOf(layout.spawnConfig),
      )
    }
    assert.equal(parseConfig(readFileSync(layout.agentConfig)).imageFloor, FLOOR)
  })

  test('writes what the command line says into the file, where it stays', (t) => {
    const { layout, start } = hostOf(t)
    start()
    edit(layout.agentConfig, { operators: [1000], requests_per_minute: 77 })
    start({ httpsPort: null, operators: [1], insecureRegistries: ['127.0.0.1:5000'] })
    start()
    const config = parseConfig(readFileSync(layout.agentConfig))
    assert.equal(config.httpsPort, null)
    assert.deepEqual(config.operators, [1])
    assert.deepEqual(config.registries, [{ host: '127.0.0.1:5000', insecure: true }])
    assert.equal(config.requestsPerMinute, 77)
  })

  test('takes no paths, ids and keys from the files, and never the word on software KVM', (t) => {
    const { layout, start } = hostOf(t)
    start({ allowSoftwareKvm: true })
    assert.equal(membersOf(layout.spawnConfig)['allow_software_kvm'], true)
    const before = membersOf(layout.agentConfig)
    edit(layout.agentConfig, { node: 'another', state_dir: '/elsewhere', vkey_file: '/other' })
    edit(layout.spawnConfig, { log_keys: ['another'], kernel: '/other', agent_uid: 1 })
    start()
    assert.deepEqual(membersOf(layout.agentConfig), before)
    const { allow_software_kvm: allowed, ...spawn } = membersOf(layout.spawnConfig)
    assert.equal(allowed, false)
    assert.deepEqual(
      [spawn['log_keys'], spawn['kernel'], spawn['agent_uid']],
      [['key'], '/kernel', 999],
    )
  })

  test('drops no member that was mistyped: the agent names it', (t) => {
    const { layout, start } = hostOf(t)
    start()
    edit(layout.agentConfig, { image_flor: FLOOR })
    start()
    assert.throws(() => parseConfig(readFileSync(layout.agentConfig)), /image_flor/u)
  })

  for (const text of ['{"operators":[1000],}', '[]', '{"operators":[],"operators":[1]}', '']) {
    test(`changes neither file when one is ${text === '' ? 'empty' : text}`, (t) => {
      const { layout, start } = hostOf(t)
      start()
      const spawn = readFileSync(layout.spawnConfig, 'utf8')
      writeFileSync(layout.agentConfig, text)
      assert.throws(() => start({ allowSoftwareKvm: true }), /agent\.json cannot be read as JSON/u)
      assert.equal(readFileSync(layout.agentConfig, 'utf8'), text)
      assert.equal(readFileSync(layout.spawnConfig, 'utf8'), spawn)
    })
  }
})
