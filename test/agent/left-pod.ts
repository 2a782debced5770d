/** A pod that an agent left in some state when it ended. */
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { createPodLog } from '../../native/pod-log.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { type PodId, parseDigest, parsePodId, parseTenantId } from '../../policy/index.ts'
import {
  openTenants,
  type PodState,
  parseIdempotencyKey,
  systemScope,
  type Tenants,
} from '../../tenants/index.ts'
import type { TestAgent } from './harness.ts'

export const POD: PodId = parsePodId('01890000-0000-7000-8000-000000000001')
const ACME = systemScope(parseTenantId('acme'))
const DIGEST = parseDigest(`sha256:${'a'.repeat(64)}`)
/** How spawn says it ended. */
export const exit = { how: 'code', value: 3, guest_reported: true, cause: 'EXIT', text: null }

/** The pod, as spawn lists it. */
export const status = (state: 'running' | 'exited', pod: string = POD): Canonical => ({
  pod,
  tenant: 'acme',
  spec: DIGEST,
  pid: 4711,
  state,
  paused: false,
  scratch_bytes: state === 'exited' ? null : 2 ** 28,
  exit: state === 'exited' ? exit : null,
})

/** Leaves a pod in `state`, as an agent that was killed there would have. @param facts of its launch */
export async function leave(
  agent: TestAgent,
  state: PodState,
  facts: Canonical = {},
  pod: PodId = POD,
): Promise<void> {
  await agent.end()
  const tenants: Tenants = openTenants({
    stateDir: agent.stateDir,
    issuer: 'https://casemate.invalid/test-host',
    audience: 'casemate:test-host',
    now: Date.now,
  })
  await tenants.createPod(ACME, {
    id: pod,
    imageReference: 'registry.example/x:1',
    request: { key: parseIdempotencyKey(pod), bodyDigest: DIGEST },
  })
  if (state !== 'requested') {
    await tenants.reserve(ACME, pod, {
      charge: { vcpus: 1, memoryMib: 128, pods: 1 },
      networked: false,
      ports: [],
    })
    await tenants.movePod(ACME, pod, 'launching')
  }
  await tenants.notePod(ACME, pod, { facts })
  if (state === 'running' || state === 'exited') await tenants.movePod(ACME, pod, 'running')
  if (state === 'exited') await tenants.movePod(ACME, pod, 'exited', { exit: { ...exit } })
  await tenants.close()
}

/** Leaves a running pod with a log, on a host whose spawn has it and takes what it is asked. */
export async function leaveRunning(agent: TestAgent): Promise<void> {
  await leave(agent, 'running')
  const directory = path.join(agent.stateDir, 'pods', POD)
  mkdirSync(directory, { recursive: true })
  await (await createPodLog(path.join(directory, 'log'), 1 << 20)).close()
  agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
  agent.spawn.answer('stop', () => ({ ok: true }))
  agent.spawn.answer('forget', () => ({ ok: true }))
}
