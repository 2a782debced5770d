/** An agent, a registry with one image that really is signed, and tenants that may run it. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { generateSigningKey, readSigningKey } from '../../agent/images/index.ts'
import { type HarnessOptions, member, type Reply, startAgent, type TestAgent } from './harness.ts'
import { putImage, REPOSITORY } from './images/support/image.ts'
import { TestRegistry } from './images/support/registry.ts'
import { imagesFor, open } from './images/support/session.ts'

export interface Stage {
  readonly agent: TestAgent
  readonly registry: TestRegistry
  /** Digests of the image's layers. */
  readonly layers: readonly string[]
  /** Of tenant acme. */
  readonly token: string
  /** Makes another tenant that may run the image, untrusted if nothing else is said. */
  admit(tenant: string, trust?: string): Promise<string>
  /** Launches the signed image for a tenant, acme if none is named, and without a key under a new one. */
  launch(tenant?: string, key?: string, more?: object): Promise<Reply>
}

/** With the untrusted tenant acme, which may run the one image, signed with its key. */
export async function stage(t: TestContext, options: HarnessOptions = {}): Promise<Stage> {
  const registry = await TestRegistry.start(t)
  const image = putImage(registry)
  const pair = generateSigningKey()
  const session = await open(t, registry, { images: imagesFor(t, [registry.host]) })
  await session.sign(readSigningKey(pair.privatePem, null), null)
  const keys = [{ id: 'release', pem: pair.publicPem }]
  const authority = { type: 'cosign-key', keys, transparency: 'none' }
  const anyOf = [{ ...authority, identityMatch: 'exactRepository' }]
  const require = { all: [{ anyOf, threshold: 1 }] }
  const rules = [{ name: 'all', match: [`${registry.host}/**`], require }]
  const agent = await startAgent(t, { ...options, insecureRegistries: [registry.host] })
  const tokens = new Map<string, string>()
  const admit = async (tenant: string, trust = 'untrusted'): Promise<string> => {
    const more = { trust, image_rule: { schemaVersion: 1, default: 'deny', rules } }
    const token = await agent.onboard(tenant, more)
    tokens.set(tenant, token)
    return token
  }
  let launches = 0
  return {
    agent,
    registry,
    layers: image.layers.map(({ digest }) => digest),
    token: await admit('acme'),
    admit,
    launch: (tenant = 'acme', key, more = {}) => {
      launches += 1
      return agent.tenant(tokens.get(tenant) ?? null, {
        method: 'POST',
        path: `/v1/tenants/${tenant}/pods`,
        body: { image: `${registry.host}/${REPOSITORY}:latest`, ...more },
        headers: { 'idempotency-key': key ?? `k${launches}` },
      })
    },
  }
}

/** All records, in the order of the log. */
export async function records(agent: TestAgent): Promise<readonly unknown[]> {
  const reply = await agent.operator({ path: '/v1/audit/records?limit=1000' })
  const all = member(reply.json, 'records')
  assert.ok(Array.isArray(all), reply.text)
  return all.map((entry: unknown) => member(entry, 'record'))
}
