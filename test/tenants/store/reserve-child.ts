/**
 * Reserves for the pods given, as a process of its own: `reserve-child.ts DIR N POD...`.
 * With N > 0 it kills itself, without any clean-up, in place of the Nth statement.
 */
import path from 'node:path'
import { parsePodId, parseTenantId, Refusal } from '../../../policy/index.ts'
import { DATABASE_FILE, systemScope } from '../../../tenants/index.ts'
import { adapt, kyselyOver, openDatabase } from '../../../tenants/store/database.ts'
import { reserve } from '../../../tenants/store/quota.ts'

const [stateDir = '', killAt = '0', ...pods] = process.argv.slice(2)
const database = adapt(openDatabase(path.join(stateDir, DATABASE_FILE)))
let statements = 0
const store = kyselyOver({
  ...database,
  prepare: (sql) => {
    statements += 1
    if (statements === Number(killAt)) process.kill(process.pid, 'SIGKILL')
    return database.prepare(sql)
  },
})
const scope = systemScope(parseTenantId('acme'))
for (const pod of pods.map(parsePodId)) {
  try {
    await reserve(store, scope, pod, {
      charge: { vcpus: 1, memoryMib: 128, pods: 1 },
      networked: true,
      ports: [],
    })
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
  }
}
await store.destroy()
