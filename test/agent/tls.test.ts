/** The certificate that the agent makes for itself, read by OpenSSL's own eyes. */
import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { suite, test } from 'node:test'
import { makeTlsPair } from '../../agent/tls.ts'
import { loadTlsPair } from '../../agent/tls-store.ts'

const DAY_MS = 86_400_000
const now = new Date('2026-11-24T12:00:00Z')

suite('agent/tls', () => {
  test('is for the loopback names alone, signs itself, and is no CA', () => {
    const { key, certificate } = makeTlsPair(now)
    const read = new X509Certificate(certificate)
    assert.ok(read.verify(read.publicKey))
    assert.ok(read.checkPrivateKey(createPrivateKey(key)))
    assert.equal(read.ca, false)
    for (const ip of ['127.0.0.1', '::1']) assert.equal(read.checkIP(ip), ip)
    assert.equal(read.checkHost('localhost'), 'localhost')
    assert.equal(read.checkHost('example.com'), undefined)
    assert.equal(read.checkIP('127.0.0.2'), undefined)
    assert.deepEqual(read.keyUsage, ['1.3.6.1.5.5.7.3.1'])
    const days = (read.validToDate.getTime() - read.validFromDate.getTime()) / DAY_MS
    assert.equal(days, 397)
    assert.ok(read.validFromDate.getTime() < now.getTime())
  })

  test('has another key and serial number each time', () => {
    const [one, two] = [makeTlsPair(now), makeTlsPair(now)].map(
      ({ certificate }) => new X509Certificate(certificate),
    )
    assert.notEqual(one?.serialNumber, two?.serialNumber)
    assert.notEqual(one?.fingerprint256, two?.fingerprint256)
  })

  test('is kept, private, and made anew a month before it expires', async (t) => {
    const directory = mkdtempSync(path.join(tmpdir(), 'casemate-tls-'))
    t.after(() => rmSync(directory, { recursive: true }))
    const first = await loadTlsPair(directory, now)
    assert.equal(statSync(path.join(directory, 'key.pem')).mode & 0o777, 0o600)
    assert.deepEqual(await loadTlsPair(directory, new Date(now.getTime() + 360 * DAY_MS)), first)
    const later = await loadTlsPair(directory, new Date(now.getTime() + 370 * DAY_MS))
    assert.notEqual(later.certificate, first.certificate)
    assert.equal(readFileSync(path.join(directory, 'key.pem'), 'utf8'), later.key)
  })
})
