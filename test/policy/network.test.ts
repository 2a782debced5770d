/** Which network a pod gets. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  decide,
  egressWords,
  type LaunchRequest,
  type Plan,
  parseEgress,
  parseHosts,
  parseNameservers,
  parseNetworkName,
  parsePortRanges,
  parsePublished,
  parseSearch,
  portRangeWords,
  Refusal,
  TENANT_NETWORK,
} from '../../policy/index.ts'
import { defaults, host, question, request, tenant } from './fixtures.ts'

suite('policy/network', () => {
  const decided = (name?: string): Plan | Refusal => {
    const network = name === undefined ? {} : { network: parseNetworkName(name) }
    return decide(question({ request: request(network) }), defaults)
  }
  const networkedOf = (name?: string): unknown => Object(decided(name)).networked

  test('gives a pod its tenant’s network when it asks for it, and none when it does not', () => {
    assert.equal(networkedOf('default'), true)
    assert.equal(networkedOf('none'), false)
    assert.equal(networkedOf(), false)
  })

  test('refuses a network of a later version by its name', () => {
    for (const name of ['restricted', 'backend']) {
      const refusal = decided(name)
      assert.ok(refusal instanceof Refusal)
      assert.equal(refusal.code, 'NETWORK_NOT_AVAILABLE')
      assert.deepEqual(refusal.facts, { network: name })
    }
    for (const text of ['', 'Default', '-x', 'a'.repeat(64), 'a b']) {
      assert.throws(() => parseNetworkName(text), { name: 'BadNoun' })
    }
  })
})

suite('policy/network/egress', () => {
  const read = (...words: readonly string[]): readonly string[] => egressWords(parseEgress(words))
  /** What a pod gets that wants `wanted` (null: says nothing) of a tenant that may reach `permitted`. */
  const decided = (
    permitted: readonly string[],
    wanted: readonly string[] | null,
    changes: Partial<LaunchRequest> = {},
    resolver = { nameservers: [] as readonly string[], options: [], search: [] },
  ): Plan | Refusal => {
    const egress = wanted && { wanted: parseEgress(wanted) }
    const asked = request({ network: TENANT_NETWORK, egress, ...changes })
    const of = tenant({ egress: parseEgress(permitted) })
    return decide(question({ tenant: of, request: asked, host: host({ resolver }) }), defaults)
  }
  const reached = (permitted: readonly string[], wanted: readonly string[] | null): unknown => {
    const outcome = decided(permitted, wanted)
    return outcome instanceof Refusal ? outcome.code : egressWords(outcome.egress)
  }

  test('reads networks as people write them, in one way each', () => {
    const words = ['internet', '192.0.2.0/24', '0.0.0.0/0=tcp', '2001:db8::/32=udp:53']
    assert.deepEqual(read(...words, '10.0.0.0/8=tcp:8000-8099'), [
      ...words,
      '10.0.0.0/8=tcp:8000-8099',
    ])
    assert.equal(parseEgress([]), null)
    for (const word of [
      '',
      'none',
      'all',
      '192.0.2.1/24',
      '192.0.2.0',
      '192.0.2.0/33',
      '192.0.02.0/24',
      '300.0.0.0/8',
      '2001:DB8::/32',
      '2001:db8:0::/32',
      '2001:db8::1/64',
      '::ffff:10.0.0.0/104',
      '::1::/64',

      '192.0.2.0/24=icmp',
      '192.0.2.0/24=tcp:0',
      '192.0.2.0/24=tcp:70000',
      '192.0.2.0/24=tcp:2-1',
      '192.0.2.0/24:443',
      '192.0.2.0/24=tcp:443,80',
      '192.0.2.0/24 ',
      '192.0.2.0/24\n',
    ]) {
      assert.throws(() => parseEgress([word]), { name: 'BadNoun' }, word)
    }
    assert.throws(() => parseEgress(Array.from({ length: 49 }, () => '192.0.2.0/24')))
  })

  test('reaches nothing by default, and what the tenant may when nothing is said', () => {
    assert.deepEqual(reached([], null), [])
    assert.deepEqual(reached(['internet', '10.0.0.0/8'], null), ['internet', '10.0.0.0/8'])
    assert.deepEqual(reached(['internet'], []), [])
  })

  test('gives less when less is asked for, and never more', () => {
    const some = ['10.1.0.0/16=tcp:8000-8099', '2001:db8::/32']
    for (const less of ['10.1.2.0/24=tcp:8000', '10.1.0.0/16=tcp:8099', '2001:db8:1::/48=udp']) {
      assert.deepEqual(reached(some, [less]), [less])
    }
    for (const more of [
      'internet',
      '10.0.0.0/8=tcp:8000',
      '10.1.0.0/16=tcp',
      '10.1.0.0/16=udp:8000',
      '10.1.0.0/16',
      '10.1.0.0/16=tcp:8000-8100',
      '10.1.0.0/16=tcp:7999',
      '::/0',
      '0.0.0.0/0',
      '8.8.8.8/32',
    ]) {
      assert.equal(reached(some, [more]), 'EGRESS_NOT_PERMITTED', more)
    }
    assert.equal(reached([], ['internet']), 'EGRESS_NOT_PERMITTED')
  })

  test('finds of the internet what is of it, and nothing private, special or of links', () => {
    for (const word of ['8.8.8.8/32=udp:53', '1.0.0.0/8', '2606:4700::/32=tcp:443']) {
      assert.deepEqual(reached(['internet'], [word]), [word])
    }
    for (const word of [
      '0.0.0.0/0',
      '10.0.0.0/8',
      '172.20.0.0/16',
      '192.168.1.0/24',
      '169.254.169.254/32',
      '127.0.0.0/8',

      '100.64.1.0/24',
      '224.0.0.1/32',
      '192.0.0.0/8',
      '::/0',
      'fd00::/8',
      'fe80::/10',
      '2002:a00::/24',
      'fd00:ec2::254/128',
      '::1/128',
      '2001:db8::/32',
      '2000::/3',
      '64:ff9b::/96',
    ]) {
      assert.equal(reached(['internet'], [word]), 'EGRESS_NOT_PERMITTED', word)
    }
  })

  test('tells names of the host to who can ask for them, and permits that', () => {
    const resolver = {
      nameservers: ['10.0.0.2', 'fd00::53'],
      options: ['ndots:2'],
      search: ['a.example'],
    }
    const nothing = Object(decided([], null, {}, resolver as never))
    assert.deepEqual(nothing.names, { hosts: [], nameservers: [], options: [], search: [] })
    const plan = Object(decided(['internet'], null, {}, resolver as never))
    assert.deepEqual(plan.names, { hosts: [], ...resolver })
    const rules = [
      '10.0.0.2/32=udp:53',
      '10.0.0.2/32=tcp:53',
      'fd00::53/128=udp:53',
      'fd00::53/128=tcp:53',
    ]
    assert.deepEqual(egressWords(plan.egress), ['internet', ...rules])
    const own = {
      nameservers: parseNameservers(['9.9.9.9']),
      search: parseSearch([]),
      hosts: parseHosts(['db:10.0.0.5', 'six:fd00::5']),
    }
    const names = { ...own, options: ['ndots:2'] }
    assert.deepEqual(Object(decided(['internet'], null, own, resolver as never)).names, names)
    for (const word of ['db', 'db:', ':10.0.0.5', 'd b:10.0.0.5', 'db:10.0.0.5\n', 'db:10.0.0']) {
      assert.throws(() => parseHosts([word]), { name: 'BadNoun' }, word)
    }
  })
})

suite('policy/network/ports', () => {
  const decided = (permitted: readonly string[], ...publish: readonly string[]): Plan | Refusal => {
    const asked = request({ network: TENANT_NETWORK, publish: parsePublished(publish) })
    const of = tenant({ ports: parsePortRanges(permitted) })
    return decide(question({ tenant: of, request: asked }), defaults)
  }
  const portsOf = (permitted: readonly string[], ...publish: readonly string[]): unknown => {
    const outcome = decided(permitted, ...publish)
    return outcome instanceof Refusal ? outcome.code : outcome.ports
  }

  test('reads ports as docker has them, on loopback unless an address is named', () => {
    const port = { host: 8080, pod: 80, protocol: 'tcp' }
    const words = ['8080:80', '0.0.0.0:8080:80/tcp', '[::1]:8080:80', '8080:80/udp']
    assert.deepEqual(parsePublished(words), [
      { address: '127.0.0.1', ...port },
      { address: '0.0.0.0', ...port },
      { address: '::1', ...port },
      { address: '127.0.0.1', ...port, protocol: 'udp' },
    ])
    const wrong =
      '80 |:80|8080:|0:80|8080:0|65536:80|8080:80/UDP|0.0.0.0:53:53/udp|[::]:53:53/udp|8080:80/sctp|::1:8080:80|[10.0.0.1]:8080:80|010.0.0.1:8080:80|localhost:8080:80|8080:80:90:1|08080:80'
    for (const word of wrong.split('|')) {
      assert.throws(() => parsePublished([word]), { name: 'BadNoun' }, word)
    }
    assert.throws(() => parsePublished(['8080:80', '127.0.0.1:8080:81']), /each once/u)
    const ranges = ['8000-8099', '443', '0.0.0.0:443', '[::]:8000-8099']
    assert.deepEqual(portRangeWords(parsePortRanges(ranges)), ranges)
    for (const word of ['', '0', '8099-8000', '65536', '*', '0.0.0.0', '::443', '0.0.0.0:443-']) {
      assert.throws(() => parsePortRanges([word]), { name: 'BadNoun' }, word)
    }
  })

  test('publishes what the tenant may, at the addresses that it may, and nothing else', () => {
    assert.equal(portsOf([], '8080:80'), 'PORT_NOT_PERMITTED')
    assert.deepEqual(portsOf([]), [])
    const some = ['8000-8099', '0.0.0.0:443']
    for (const word of ['8000:80', '8099:80', '[::1]:8050:80', '8000:53/udp', '0.0.0.0:443:443']) {
      assert.deepEqual(portsOf(some, word), parsePublished([word]), word)
    }
    for (const word of [
      '7999:80',
      '8100:80',
      '443:443',
      '0.0.0.0:8000:80',
      '192.0.2.1:443:443',
      '[::]:443:443',
    ]) {
      assert.equal(portsOf(some, word), 'PORT_NOT_PERMITTED', word)
    }
    assert.equal(portsOf(some, '8000:80', '22:22'), 'PORT_NOT_PERMITTED')
  })
})
