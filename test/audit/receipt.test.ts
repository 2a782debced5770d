import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { leafHash } from '../../audit/merkle.ts'
import { formatReceipt, parseReceipt, verifyReceipt } from '../../audit/receipt.ts'
import { isCanonicalObject, parseCanonical } from '../../policy/canonical.ts'
import { vectors } from '../vectors/audit/generate.ts'

const directory = path.join(import.meta.dirname, '../vectors/audit/ticket')

interface Vector {
  readonly code: string | null
  readonly ticket: string
  readonly record: string
  readonly leafHash: string
  readonly vkeys: readonly string[]
}

function textOf(value: unknown): string {
  assert.ok(typeof value === 'string')
  return value
}

function read(name: string): Vector {
  const value = parseCanonical(readFileSync(path.join(directory, name)))
  assert.ok(isCanonicalObject(value))
  const { code, context = null } = value
  assert.ok(isCanonicalObject(context) && Array.isArray(context['log_keys']))
  return {
    code: code === null ? null : textOf(code),
    ticket: textOf(value['ticket']),
    record: textOf(value['record']),
    leafHash: textOf(value['leaf_hash']),
    vkeys: context['log_keys'].map(textOf),
  }
}

/** What a receipt alone can be refused for; the rest of a ticket is judged by spawn and the VMM. */
const codes: Readonly<Record<string, string>> = {
  TICKET_MALFORMED: 'NOTE_MALFORMED',
  TICKET_KEY_UNKNOWN: 'NOTE_KEY_UNKNOWN',
  TICKET_SIGNATURE: 'NOTE_SIGNATURE',
  TICKET_NOT_INCLUDED: 'RECEIPT_MISMATCH',
}

suite('audit/receipt', () => {
  test('has vectors that are what their generator makes', () => {
    assert.deepEqual(readdirSync(directory).toSorted(), [...vectors.keys()].toSorted())
    for (const [name, text] of vectors) {
      assert.equal(readFileSync(path.join(directory, name), 'utf8'), text, name)
    }
  })

  for (const name of readdirSync(directory)) {
    const vector = read(name)
    const verify = (): unknown =>
      verifyReceipt(vector.ticket, Buffer.from(vector.record), vector.vkeys)
    const code = codes[vector.code ?? '']
    if (code !== undefined) {
      test(`refuses ${name} with ${code}`, () => {
        assert.throws(verify, { code })
      })
    } else if (vector.code !== 'TICKET_MISSING') {
      test(`verifies ${name}`, () => {
        assert.equal(leafHash(Buffer.from(vector.record)).toString('hex'), vector.leafHash)
        assert.doesNotThrow(verify)
      })
    }
  }

  test('writes what it reads', () => {
    const { ticket } = read('valid.jcs')
    assert.equal(formatReceipt(parseReceipt(ticket)), ticket)
  })
})
