/**
 * A guest that was taken over (guest/hostile.c in place of guest-init): whatever it says or does not
 * say, its VMM ends with the cause named, and spawn and agent lose nothing.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before as first, suite, test } from 'node:test'
import type { Template } from '../../native/spawn-answers.ts'
import { archive, directory, file } from '../native/workers/rootfs/tar-writer.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { buildDisk, compile } from './images.ts'
import { run, type Wish } from './launch.ts'
import { isNamed } from './named.ts'

/** What it does, spawn's word on the end, and the sentence. */
const ends: readonly (readonly [string, string, RegExp])[] = [
  ['garbage', 'failure GUEST_PROTOCOL', /kind 255 does not exist/u],
  ['early', 'failure GUEST_PROTOCOL', /a frame of kind 69 may not come in phase Starting/u],
  ['large', 'failure GUEST_PROTOCOL', /1048576/u],
  ['exit', 'failure GUEST_PROTOCOL', /Exit frame has a payload that is none/u],
  ['credit', 'failure GUEST_PROTOCOL', /more credit than a window holds/u],
  ['panic', 'failure GUEST_PANIC', /panicked/u],
]

/** Long enough for a restore, and no longer than a test may take. */
const SILENCE_MS = 5000

/** A spawn whose guests begin with guest/hostile.c; `more` lies on their disk. */
async function another(machine: Machine, name: string, ...more: Buffer[]): Promise<SpawnHost> {
  const program = machine.place(name)
  compile('guest/hostile', program)
  const folders = ['dev', 'proc', 'sys', 'mnt'].map((folder) => directory(folder))
  const init = file('init', readFileSync(program), { mode: 0o755 })
  const disk = await buildDisk(machine.place(`${name}.img`), archive(...folders, init, ...more))
  const verity = { ...disk.verity }
  return await machine.another(`${name}-spawn`, { init: disk.path, init_verity: verity })
}

/** Beside the others, because it takes a boot of its own. */
export function nonsenseCases(machine: Machine): void {
  suite('system/guest that speaks nonsense', { concurrency: 1 }, () => {
    test('makes no template', async () => {
      const on = await another(machine, 'nonsense', file('nonsense', ''))
      const cause = /^the template could not be built: GUEST_PROTOCOL: /u
      await assert.rejects(on.spawn.template(1, 128), { code: 'TEMPLATE_FAILED', message: cause })
      await on.program.end()
    })
  })
}

export function hostileCases(machine: Machine): void {
  suite('system/hostile guest', { concurrency: 1 }, () => {
    let on: SpawnHost
    let template: Template
    const wish = (how: string): Wish => ({ args: ['/hostile', 'hostile', how], on, template })

    first(async () => {
      on = await another(machine, 'hostile')
      template = (await on.spawn.template(1, 128)).template
    })
    after(() => on.program.end())

    for (const [how, cause, sentence] of ends) {
      test(`ends a guest with ${cause} (${how})`, async () => {
        const { exit } = await run(machine, wish(how))
        assert.equal(`${exit.how} ${exit.cause}`, cause, exit.text ?? '')
        assert.match(exit.text ?? '', sentence)
        assert.equal(exit.guest_reported, false)
        isNamed(exit, 'RUNNING')
      })
    }

    test('ends a guest that resets its machine', async () => {
      const { exit } = await run(machine, wish('off'))
      // A triple fault, which software KVM reports as a state that it cannot run.
      const cause = machine.host.kvm === 'software' ? 'GUEST_CRASH' : 'GUEST_GONE'
      assert.equal(`${exit.how} ${exit.cause}`, `failure ${cause}`, exit.text ?? '')
      assert.equal(exit.guest_reported, false)
    })

    test('ends a guest that has its configuration and says nothing more', async () => {
      const { exit } = await run(machine, { ...wish('silence'), bootMs: SILENCE_MS })
      assert.equal(`${exit.how} ${exit.cause}`, 'failure GUEST_SILENT', exit.text ?? '')
      isNamed(exit, 'GUEST_INIT')
    })

    test('ends a guest that boots and never speaks', async () => {
      const { exit } = await run(machine, { ...wish('-'), template: null, bootMs: SILENCE_MS })
      assert.equal(`${exit.how} ${exit.cause}`, 'failure BOOT_TIMEOUT', exit.text ?? '')
      isNamed(exit, 'GUEST_INIT')
    })

    test('ends a guest that said EXIT and stays, with the code it reported', async () => {
      const { exit } = await run(machine, wish('linger'))
      assert.equal(`${exit.how} ${exit.value} ${exit.cause}`, 'code 8 APP_EXIT')
      assert.equal(exit.guest_reported, true)
    })
  })
}
