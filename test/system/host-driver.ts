/**
 * A whole host in a mount namespace of its own, whose agent can be started again and again:
 *
 *     unshare --mount --propagation private -- node host-driver.ts STATE RUN REGISTRY [LEVELS]
 *
 * LEVELS is what stands in spawn.json under that name: who may run below level vm.
 * Says `host` when signer and spawn serve; for each line `agent` on standard input starts an agent
 * and says `agent PID`. Ends with its standard input.
 */
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import type { Child } from '../../native/up/child.ts'
import { layoutOf } from '../../native/up/layout.ts'
import { configure, prepareHost, startAgent, startSigner, startSpawn } from '../../native/up/up.ts'

const [state = '', run = '', registry = '', levels = '{}'] = process.argv.slice(2)
const layout = layoutOf(state, run)
const host = prepareHost({
  layout,
  checkout: path.resolve(import.meta.dirname, '../..'),
  tell: () => undefined,
  settings: {
    allowSoftwareKvm: true,
    httpsPort: null,
    operators: [],
    insecureRegistries: [registry],
  },
})
const signer = await startSigner(host)
writeFileSync(layout.spawnConfig, `{"levels":${levels}}`)
configure(host, signer.said)
const children: Child[] = [signer, await startSpawn(host, () => undefined)]
process.stdout.write('host\n')

for await (const line of createInterface({ input: process.stdin })) {
  if (line !== 'agent') continue
  // oxlint-disable-next-line no-await-in-loop -- one agent at a time
  const agent = await startAgent(host)
  children.push(agent)
  process.stdout.write(`agent ${agent.pid}\n`)
}
// oxlint-disable-next-line no-await-in-loop -- agents before spawn, spawn before the signer
for (const child of children.toReversed()) await child.end()
