/** What level host has not: refused by name, and nothing of the host's given instead. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  decide,
  ISOLATION_LEVELS,
  type IsolationLevel,
  type LaunchRequest,
  type Plan,
  parseEgress,
  parseHostname,
  parseHosts,
  parseNameservers,
  parseNetworkName,
  parsePublished,
  parseSearch,
  Refusal,
} from '../../policy/index.ts'
import { parseCapability } from '../../policy/nouns/capability.ts'
import { parseSysctls } from '../../policy/nouns/sysctl.ts'
import { defaults, host, question, request, tenant } from './fixtures.ts'

const decided = (isolation: IsolationLevel, changes: Partial<LaunchRequest>): Plan | Refusal =>
  decide(
    question({
      tenant: tenant({ trust: 'trusted' }),
      host: host({ levels: { acme: ['container', 'host'] }, launchers: ISOLATION_LEVELS }),
      request: request({ isolation, ...changes }),
    }),
    defaults,
  )

const onHost = (changes: Partial<LaunchRequest> = {}): Plan | Refusal =>
  decided('host', { network: parseNetworkName('host'), ...changes })

suite('policy/host-level', () => {
  test('is had with the host’s network, asked for by name, and no other level has that', () => {
    const codeOf = (isolation: IsolationLevel, network: string): string => {
      const found = decided(isolation, { network: parseNetworkName(network) })
      return found instanceof Refusal ? found.code : found.level
    }
    assert.equal(codeOf('host', 'host'), 'host')
    for (const network of ['none', 'default']) {
      assert.equal(codeOf('host', network), 'NETWORK_NOT_AVAILABLE', network)
    }
    for (const level of ['vm', 'container'] as const) {
      assert.equal(codeOf(level, 'host'), 'NETWORK_NOT_AVAILABLE', level)
    }
    const plan = onHost()
    assert.ok(!(plan instanceof Refusal))
    assert.deepEqual([plan.networked, plan.egress, plan.ports], [false, null, []])
  })

  test('refuses what a pod would have of its own elsewhere, each by its name', () => {
    const asked: Readonly<Record<string, Partial<LaunchRequest>>> = {
      hostname: { hostname: parseHostname('web') },
      sysctls: { sysctls: parseSysctls({ 'net.core.somaxconn': '9' }) },
      egress: { egress: { wanted: parseEgress(['10.0.0.0/8']) } },
      nameservers: { nameservers: parseNameservers(['10.0.0.53']) },
      search: { search: parseSearch(['example.com']) },
      hosts: { hosts: parseHosts(['db:10.0.0.5']) },
      publish: { publish: parsePublished(['8080:80']) },
    }
    for (const [option, changes] of Object.entries(asked)) {
      const refusal = onHost(changes)
      assert.ok(refusal instanceof Refusal, option)
      assert.equal(refusal.code, 'OPTION_NOT_AT_LEVEL')
      assert.deepEqual(refusal.facts, { option, level: 'host' })
    }
  })

  test('gives no capability that is over the host, and refuses one that is asked for', () => {
    const plan = onHost()
    assert.ok(!(plan instanceof Refusal))
    const { bounding, effective, permitted } = plan.process.capabilities
    for (const name of ['CAP_NET_RAW', 'CAP_MKNOD', 'CAP_AUDIT_WRITE', 'CAP_SETFCAP'] as const) {
      for (const set of [bounding, effective, permitted]) assert.ok(!set.includes(name), name)
    }
    assert.ok(bounding.includes('CAP_NET_BIND_SERVICE') && bounding.includes('CAP_SETUID'))
    const refusal = onHost({ capabilitiesAdd: [parseCapability('CAP_NET_RAW')] })
    assert.ok(refusal instanceof Refusal)
    assert.equal(refusal.code, 'CAPABILITY_NOT_PERMITTED')
    const more = onHost({ capabilitiesAdd: [parseCapability('CAP_CHOWN')] })
    assert.ok(!(more instanceof Refusal))
  })
})
