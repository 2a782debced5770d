/** Machines of one template are one machine until they are told apart: nothing random may be shared. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { facts, probe, run } from './launch.ts'

const RANDOM = [
  'boot_id',
  'uuid',
  'urandom',
  'getrandom',
  'at_random',
  'stack',
  'vdso',
  'temporary',
]

export function uniqueCases(machine: Machine): void {
  suite('system/unique', { concurrency: 1 }, () => {
    test('restores machines with nothing random in common, at the right time', async () => {
      const begin = Math.floor(Date.now() / 1000)
      const wish = { args: probe('unique') }
      const ended = await Promise.all([run(machine, wish), run(machine, wish)])
      const end = Math.ceil(Date.now() / 1000)
      const found = ended.map(({ stdout }) => facts(stdout))
      for (const name of RANDOM) {
        const values = found.map((one) => one.get(name) ?? '')
        for (const value of values) assert.match(value, /^[\w/-]{10,}$/u, name)
        assert.equal(new Set(values).size, values.length, `${name}: ${values.join(' ')}`)
      }
      const hosts = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
      for (const one of found) {
        assert.notEqual(one.get('boot_id'), hosts)
        const clock = Number(one.get('clock'))
        assert.ok(clock >= begin && clock <= end, `${begin} <= ${clock} <= ${end}`)
      }
    })

    test('restores machines whose time goes on from the template, however old that is', async () => {
      const lives: { readonly uptime: number; readonly lived: number }[] = []
      for (let turn = 0; turn < 3; turn += 1) {
        const began = Date.now()
        // oxlint-disable-next-line no-await-in-loop -- one after the other, so that the template grows older
        const { stdout } = await run(machine, { args: probe('unique') })
        lives.push({ uptime: Number(facts(stdout).get('uptime_ms')), lived: Date.now() - began })
      }
      const [first, , last] = lives
      assert.ok(first !== undefined && last !== undefined)
      // Both began with the template's uptime: between them lies less than the life of the second.
      const between = last.uptime - first.uptime
      assert.ok(between < last.lived, `${between} ms between two that lived ${last.lived} ms`)
    })
  })
}
