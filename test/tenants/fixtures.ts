/** Tenants in a directory of their own, with a clock that the test moves. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'
import {
  type Charge,
  type PodId,
  parsePodId,
  parseTenantId,
  type TenantId,
} from '../../policy/index.ts'
import {
  type Caller,
  openTenants,
  type Pod,
  type QuotaLimits,
  type Tenant,
  type TenantChanges,
  type TenantScope,
  type Tenants,
} from '../../tenants/index.ts'
import type { Wanted } from '../../tenants/store/quota.ts'

export const ISSUER = 'https://node-1.example.com'
export const AUDIENCE = 'https://node-1.example.com/v1'
export const START_MS = 1_800_000_000_000

export const root: Caller = { kind: 'operator', uid: 0 }
export const acme: TenantId = parseTenantId('acme')
export const bolt: TenantId = parseTenantId('bolt')
export const small: Charge = { vcpus: 1, memoryMib: 128, pods: 1 }
/** A launch of that size without a network. */
export const alone: Wanted = { charge: small, networked: false, ports: [] }

export interface Fixture {
  readonly stateDir: string
  readonly tenants: Tenants
  readonly clock: { nowMs: number }
}

export const temporaryDir = (t: TestContext): string => {
  const folder = mkdtempSync(path.join(tmpdir(), 'casemate-tenants-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export const openAt = (
  stateDir: string,
  clock: { readonly nowMs: number } = { nowMs: START_MS },
): Tenants => openTenants({ stateDir, issuer: ISSUER, audience: AUDIENCE, now: () => clock.nowMs })

export const open = (t: TestContext): Fixture => {
  const stateDir = temporaryDir(t)
  const clock = { nowMs: START_MS }
  const tenants = openAt(stateDir, clock)
  t.after(async () => await tenants.close())
  return { stateDir, tenants, clock }
}

export const ROOMY: QuotaLimits = {
  vcpus: 100,
  memoryMib: 100_000,
  pods: 100,
  launchesPerMinute: 100,
  volumes: 100,
  volumeMib: 100_000,
}

/** A tenant and its scope, as an operator has it. */
export const withTenant = async (
  tenants: Tenants,
  id: TenantId = acme,
  quotas: QuotaLimits = ROOMY,
): Promise<TenantScope> => {
  const tenant = {
    id,
    display: `Tenant ${id}`,
    trust: 'untrusted',
    imageRule: null,
    egress: null,
    ports: [],
    quotas,
  } as const
  await tenants.createTenant(tenants.operator(root), tenant, async () => {})
  return await tenants.scope(root, id)
}

/** As an operator changes a tenant, with a log that takes every record. */
export const change = (tenants: Tenants, id: TenantId, changes: TenantChanges): Promise<Tenant> =>
  tenants.changeTenant(tenants.operator(root), id, changes, async () => {})

let made = 0
export const newPodId = (): PodId => {
  made += 1
  return parsePodId(`0193b5a0-7e4c-7abc-8def-${made.toString(16).padStart(12, '0')}`)
}

export const requested = async (tenants: Tenants, scope: TenantScope): Promise<Pod> => {
  const created = await tenants.createPod(scope, {
    id: newPodId(),
    imageReference: 'registry.example.com/acme/web:1',
    request: null,
  })
  if (created.kind !== 'created') throw new Error('a replay without a key')
  return created.pod
}

export const running = async (tenants: Tenants, scope: TenantScope): Promise<Pod> => {
  const { id } = await requested(tenants, scope)
  await tenants.reserve(scope, id, alone)
  await tenants.movePod(scope, id, 'launching')
  return await tenants.movePod(scope, id, 'running')
}
