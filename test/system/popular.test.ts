/** Programs that people run, as pods of an untrusted tenant: pushed, signed, launched by the CLI. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { generateSigningKey } from '../../agent/images/index.ts'
import { afterwards } from '../audit/harness.ts'
import { missing, startDockerRegistry } from '../peers/images-programs.ts'
import { whyNot } from './harness.ts'
import { imageOf, POPULAR, type Popular } from './popular/images.ts'
import { pushSigned, ruleOf, TENANT } from './signed-image.ts'
import { startUp, stateDirectory } from './up-host.ts'

/** `1`: all; a name: that one as well. */
const asked = process.env['CASEMATE_TEST_POPULAR']
const why = whyNot() ?? missing('docker-registry', 'apt-get', 'dpkg-deb')
const isWanted = ({ name, always }: Popular): boolean =>
  always === true || asked === '1' || asked === name

suite('system/popular images', { skip: why }, () => {
  test('start, are used, and answer right', async (t) => {
    const state = stateDirectory(t)
    const registry = await startDockerRegistry(state)
    afterwards(t, () => registry.stop())
    const keys = generateSigningKey()
    const place = { host: registry.host, directory: path.join(state, 'cli'), keys }
    const rule = path.join(state, 'rule.json')
    writeFileSync(rule, JSON.stringify(ruleOf(registry.host, keys)))
    const flags = ['--https-port', '0', '--insecure-registry', registry.host]
    const host = startUp(t, state, '--allow-software-kvm', ...flags)
    await host.heard(/casemate is up/u)
    const created = await host.as(0, 'CASEMATE', 'tenant', 'create', TENANT, '--image-rule', rule)
    assert.equal(created.code, 0, created.stderr)
    for (const popular of POPULAR) {
      // oxlint-disable-next-line no-await-in-loop -- one virtual machine after the other
      await t.test(
        popular.name,
        { skip: isWanted(popular) ? false : 'only in `npm run test:popular`' },
        async () => {
          const image = await pushSigned(place, imageOf(popular))
          const [vcpus, memory] = popular.machine.map(String)
          assert.ok(vcpus !== undefined && memory !== undefined)
          const shape = ['--vcpus', vcpus, '--memory', memory]
          const ran = await host.as(0, 'CASEMATE', '-t', TENANT, 'run', ...shape, image)
          assert.deepEqual([ran.code, ran.stdout], [0, 'ok\n'], `${ran.stdout}\n${ran.stderr}`)
        },
      )
    }
  })
})
