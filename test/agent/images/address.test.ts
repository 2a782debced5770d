/** Where the agent may connect to. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type AddressClass, checkUrl, classify } from '../../../agent/images/registry/address.ts'

const CLASSES: Readonly<Record<string, AddressClass>> = {
  '93.184.216.34': 'public',
  '2606:2800:220:1::1': 'public',
  '10.1.2.3': 'private',
  '172.31.0.1': 'private',
  '192.168.1.1': 'private',
  '100.64.0.1': 'private',
  'fd12::1': 'private',
  '127.0.0.1': 'loopback',
  '127.255.255.254': 'loopback',
  '::1': 'loopback',
  '::ffff:127.0.0.1': 'loopback',
  '::ffff:7f00:1': 'loopback',
  '::ffff:10.0.0.1': 'private',
  '0.0.0.0': 'forbidden',
  '169.254.169.254': 'forbidden',
  '::ffff:169.254.169.254': 'forbidden',
  '::ffff:a9fe:a9fe': 'forbidden',
  '64:ff9b::a9fe:a9fe': 'forbidden',
  '2002:a9fe:a9fe::1': 'forbidden',
  'fd00:ec2::254': 'forbidden',
  'fe80::1': 'forbidden',
  '100.100.100.200': 'forbidden',
  '168.63.129.16': 'forbidden',
  '224.0.0.1': 'forbidden',
  '255.255.255.255': 'forbidden',
  '::': 'forbidden',
  'not an address': 'forbidden',
}

const allowances = [
  { host: 'registry.lan:5000', insecure: false },
  { host: '127.0.0.1:5000', insecure: true },
  { host: '10.0.0.1', insecure: false },
]

suite('agent/images/registry/address', () => {
  for (const [address, expected] of Object.entries(CLASSES)) {
    test(`takes ${address} for ${expected}`, () => {
      assert.equal(classify(address), expected)
    })
  }

  for (const url of [
    'https://registry.example.com/v2/',
    'https://registry.lan:5000/v2/',
    'http://127.0.0.1:5000/v2/',
    'https://10.0.0.1/v2/',
    'https://93.184.216.34/v2/',
  ]) {
    test(`permits ${url}`, () => {
      assert.doesNotThrow(() => checkUrl(new URL(url), allowances))
    })
  }

  for (const url of [
    'http://registry.example.com/v2/',
    'http://registry.lan:5000/v2/',
    'http://127.0.0.1:5001/v2/',
    'https://127.0.0.1/v2/',
    'https://10.0.0.1:444/v2/',
    'https://10.0.0.2/v2/',
    'https://169.254.169.254/latest/meta-data/',
    'https://2852039166/latest/',
    'https://0x7f.1/v2/',
    'https://[::1]/v2/',
    'https://[::ffff:169.254.169.254]/',
    'https://user:password@registry.example.com/v2/',
    'file:///etc/passwd',
    'ftp://registry.example.com/',
  ]) {
    test(`refuses ${url}`, () => {
      assert.throws(() => checkUrl(new URL(url), allowances), {
        code: 'REGISTRY_ADDRESS_FORBIDDEN',
      })
    })
  }
})
