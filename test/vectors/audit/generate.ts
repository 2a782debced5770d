/**
 * Writes test/vectors/audit/ticket/*.jcs: one valid launch ticket, and each single thing that can
 * be wrong with one, with the code it must be refused with. Rust (native/ticket) and TypeScript
 * read the same files, which are canonical JSON. Keys are fixed, so the files come out the same
 * each time:
 *
 *   node test/vectors/audit/generate.ts
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import {
  foldNodes,
  inclusionRanges,
  leafHash,
  perfectNodes,
  sha256,
} from '../../../audit/merkle.ts'
import { checkpointText, type Signer, signerFromSeed, signNote } from '../../../audit/note.ts'
import { formatReceipt } from '../../../audit/receipt.ts'
import { type Canonical, type CanonicalObject, canonicalJson } from '../../../policy/canonical.ts'
import {
  app,
  baseContext,
  baseRecord,
  baseSpec,
  containerSpec,
  descriptors,
  digest,
  key,
  limits,
  machine,
  NOW,
  program,
  rates,
} from './base.ts'
import { containerCases } from './containers.ts'

const directory = path.join(import.meta.dirname, 'ticket')
const stranger = signerFromSeed('casemate.example/log', Buffer.alloc(32, 2))
const otherLog = signerFromSeed('casemate.example/other', Buffer.alloc(32, 3))

interface Case {
  readonly name: string
  readonly code: string | null
  readonly spec?: CanonicalObject
  /** The spec's bytes when they are not canonical(spec); what is recorded is of these. */
  readonly specText?: string
  /** The spec's bytes that are presented, when they are not those that were recorded. */
  readonly presented?: string
  readonly record?: CanonicalObject
  readonly recordText?: string
  readonly context?: CanonicalObject
  readonly signer?: Signer
  readonly now?: bigint
  readonly ticket?: (ticket: string) => string
  /** The record that is presented, when it is not the one that was logged. */
  readonly shown?: (record: string) => string
}

/** A log of seven records with this one at index 4, and its receipt. */
function receiptOf(record: string, signer: Signer): string {
  const leaves = Array.from({ length: 7 }, (_, index) =>
    leafHash(Buffer.from(index === 4 ? record : `{"n":${index}}`)),
  )
  const rootOf = (from: number, to: number): Buffer =>
    foldNodes(
      perfectNodes({ from, to }).map((node) => {
        const width = 2 ** node.level
        const [only = Buffer.alloc(0)] = leaves.slice(node.index * width)
        if (node.level === 0) return only
        const first = node.index * width
        return rootOfPerfect(leaves.slice(first, first + width))
      }),
    )
  const checkpoint = signNote(
    checkpointText({ origin: key.name, size: 7, root: rootOf(0, 7) }),
    signer,
  )
  const hashes = inclusionRanges(4, 7).map(({ from, to }) => rootOf(from, to))
  return formatReceipt({ index: 4, hashes, checkpoint })
}

function rootOfPerfect(leaves: readonly Buffer[]): Buffer {
  if (leaves.length === 1) return leaves[0] ?? Buffer.alloc(0)
  const middle = leaves.length / 2
  const [left, right] = [leaves.slice(0, middle), leaves.slice(middle)].map(rootOfPerfect)
  return sha256(Buffer.from([1]), left ?? '', right ?? '')
}

/** The texts of spec and record that were logged. */
function loggedBy(one: Case): { readonly spec: string; readonly record: string } {
  const spec = one.specText ?? canonicalJson(one.spec ?? baseSpec)
  const facts = { digest: digest(spec), size: Buffer.byteLength(spec) }
  const record = canonicalJson({ ...baseRecord, spec: facts, ...one.record })
  return { spec, record: one.recordText ?? record }
}

function vectorOf(one: Case): CanonicalObject {
  const { spec, record } = loggedBy(one)
  const { signer = key, ticket = (text) => text, shown = (text) => text } = one
  return {
    name: one.name,
    code: one.code,
    ticket: ticket(receiptOf(record, signer)),
    record: shown(record),
    spec: one.presented ?? spec,
    context: one.context ?? baseContext,
    now_boottime_ns: String(one.now ?? NOW),
    leaf_hash: leafHash(Buffer.from(shown(record))).toString('hex'),
  }
}

const changedSpec = (change: CanonicalObject): CanonicalObject => ({ ...baseSpec, ...change })
const changedContext = (change: CanonicalObject): CanonicalObject => ({ ...baseContext, ...change })
const without = (object: CanonicalObject, name: string): CanonicalObject =>
  Object.fromEntries(Object.entries(object).filter(([member]) => member !== name))
const lineOf = (ticket: string, number: number): string => ticket.split('\n')[number] ?? ''
/** Turns the first symbol of a line's base64 into another. */
const bend = (ticket: string, number: number): string => {
  const line = lineOf(ticket, number)
  const other = line.startsWith('A') ? 'B' : 'A'
  return ticket.replace(line, other + line.slice(1))
}
const swapTwo: Canonical[] = descriptors.toSpliced(0, 2, ...descriptors.slice(0, 2).toReversed())

const tickets: readonly Case[] = [
  { name: 'valid', code: null },
  {
    name: 'valid-cold-boot',
    code: null,
    spec: changedSpec({ template: null }),
  },
  {
    name: 'valid-two-keys',
    code: null,
    context: changedContext({ log_keys: [stranger.vkey, otherLog.vkey, key.vkey] }),
  },
  { name: 'valid-at-deadline', code: null, now: NOW + 25_000_000_000n },
  { name: 'valid-furthest-deadline', code: null, now: NOW - 5_000_000_000n },
  {
    name: 'valid-hardware',
    code: null,
    spec: changedSpec({ kvm: 'hardware' }),
    record: { isolation: { level: 'vm', kvm: 'hardware', requested: null } },
    context: changedContext({ kvm: 'hardware', allow_software_kvm: false }),
  },
  {
    name: 'valid-unknown-witness',
    code: null,
    ticket: (ticket) => `${ticket}\u2014 witness.example/w AAAAAAAA\n`,
  },
  { name: 'missing-ticket', code: 'TICKET_MISSING', ticket: () => '' },
  { name: 'missing-record', code: 'TICKET_MISSING', shown: () => '' },
  { name: 'header', code: 'TICKET_MALFORMED', ticket: (t) => t.replace('@v1', '@v2') },
  {
    name: 'extra-line',
    code: 'TICKET_MALFORMED',
    ticket: (t) => t.replace('\n', '\nextra AAAA\n'),
  },
  {
    name: 'index-zero-padded',
    code: 'TICKET_MALFORMED',
    ticket: (t) => t.replace('index 4', 'index 04'),
  },
  {
    name: 'index-negative',
    code: 'TICKET_MALFORMED',
    ticket: (t) => t.replace('index 4', 'index -4'),
  },
  { name: 'hash-short', code: 'TICKET_MALFORMED', ticket: (t) => t.replace(lineOf(t, 2), 'AAAA') },
  { name: 'carriage-returns', code: 'TICKET_MALFORMED', ticket: (t) => t.replaceAll('\n', '\r\n') },
  { name: 'unsigned', code: 'TICKET_MALFORMED', ticket: (t) => t.slice(0, t.indexOf('\u2014')) },
  { name: 'cut', code: 'TICKET_MALFORMED', ticket: (t) => t.slice(0, -1) },
  { name: 'key-stranger', code: 'TICKET_KEY_UNKNOWN', signer: stranger },
  { name: 'key-none', code: 'TICKET_KEY_UNKNOWN', context: changedContext({ log_keys: [] }) },
  {
    name: 'key-of-other-origin',
    code: 'TICKET_KEY_UNKNOWN',
    signer: otherLog,
    context: changedContext({ log_keys: [otherLog.vkey] }),
  },
  {
    name: 'signature-of-other-size',
    code: 'TICKET_SIGNATURE',
    ticket: (t) => t.replace('\n7\n', '\n8\n'),
  },
  { name: 'signature-of-other-root', code: 'TICKET_SIGNATURE', ticket: (t) => bend(t, 8) },
  {
    name: 'index-other',
    code: 'TICKET_NOT_INCLUDED',
    ticket: (t) => t.replace('index 4', 'index 3'),
  },
  {
    name: 'index-beyond',
    code: 'TICKET_NOT_INCLUDED',
    ticket: (t) => t.replace('index 4', 'index 7'),
  },
  { name: 'hash-other', code: 'TICKET_NOT_INCLUDED', ticket: (t) => bend(t, 2) },
  {
    name: 'hash-missing',
    code: 'TICKET_NOT_INCLUDED',
    ticket: (t) => t.replace(`${lineOf(t, 2)}\n`, ''),
  },
  {
    name: 'hash-twice',
    code: 'TICKET_NOT_INCLUDED',
    ticket: (t) => t.replace(lineOf(t, 2), `${lineOf(t, 2)}\n${lineOf(t, 2)}`),
  },
  { name: 'record-other', code: 'TICKET_NOT_INCLUDED', shown: (r) => r.replace('acme', 'acma') },
]

const records: readonly Case[] = [
  { name: 'record-not-json', code: 'TICKET_RECORD', recordText: 'hello' },
  {
    name: 'record-not-canonical',
    code: 'TICKET_RECORD',
    recordText: '{"v":"casemate.audit/1", "type":"launch.intent"}',
  },
  { name: 'record-version', code: 'TICKET_RECORD', record: { v: 'casemate.audit/2' } },
  { name: 'record-type', code: 'TICKET_RECORD', record: { type: 'launch.started' } },
  { name: 'record-without-spec', code: 'TICKET_RECORD', record: { spec: null } },
  {
    name: 'record-level',
    code: 'TICKET_RECORD',
    record: { isolation: { level: 'VM', kvm: 'software' } },
  },
  { name: 'record-kvm', code: 'TICKET_RECORD', record: { isolation: { level: 'vm', kvm: null } } },
  {
    name: 'record-deadline-number',
    code: 'TICKET_RECORD',
    record: { deadline: { boottime_ns: 1 } },
  },
  {
    name: 'record-deadline-sign',
    code: 'TICKET_RECORD',
    record: { deadline: { boottime_ns: '+1020000000000' } },
  },
  { name: 'host', code: 'TICKET_HOST', context: changedContext({ node: 'host-2' }) },
  {
    name: 'boot',
    code: 'TICKET_BOOT',
    context: changedContext({ boot_id: '00000000-0000-4000-8000-000000000000' }),
  },
  { name: 'expired', code: 'TICKET_EXPIRED', now: NOW + 25_000_000_001n },
  { name: 'too-far', code: 'TICKET_TOO_FAR', now: NOW - 5_000_000_001n },
]

const withScratchMost = (most: number | null): readonly CanonicalObject[] =>
  descriptors.map((one) => (one['role'] === 'scratch' ? { ...one, size_max: most } : one))

const specs: readonly Case[] = [
  {
    name: 'spec-other',
    code: 'TICKET_SPEC_DIGEST',
    presented: canonicalJson(changedSpec({ hostname: 'web-2' })),
  },
  { name: 'spec-empty', code: 'TICKET_SPEC_DIGEST', presented: '' },
  {
    name: 'spec-size',
    code: 'TICKET_SPEC_DIGEST',
    record: { spec: { digest: digest(canonicalJson(baseSpec)), size: 1 } },
  },
  { name: 'spec-not-canonical', code: 'SPEC_MALFORMED', specText: `${canonicalJson(baseSpec)}\n` },
  { name: 'spec-unknown-member', code: 'SPEC_MALFORMED', spec: changedSpec({ extra: 1 }) },
  { name: 'spec-member-missing', code: 'SPEC_MALFORMED', spec: without(baseSpec, 'limits') },
  {
    name: 'spec-descriptors-swapped',
    code: 'SPEC_MALFORMED',
    spec: changedSpec({ descriptors: swapTwo }),
  },
  {
    name: 'spec-descriptor-missing',
    code: 'SPEC_MALFORMED',
    spec: changedSpec({ descriptors: descriptors.slice(0, 3) }),
  },
  ...(
    [
      ['smaller', 1_073_737_728],
      ['odd', 1_073_741_825],
      ['beyond', 2 ** 40 + 4096],
      ['null', null],
    ] as const
  ).map(([what, most]) => ({
    name: `spec-scratch-${what}`,
    code: 'SPEC_MALFORMED',
    spec: changedSpec({ descriptors: withScratchMost(most) }),
  })),
  {
    name: 'spec-memory-odd',
    code: 'SPEC_MALFORMED',
    spec: changedSpec({ template: null, machine: { ...machine, memory_mib: 129 } }),
  },
  {
    name: 'spec-template-size',
    code: 'SPEC_MALFORMED',
    spec: changedSpec({ machine: { ...machine, memory_mib: 256 } }),
  },
  {
    name: 'spec-seccomp-digest',
    code: 'SPEC_MALFORMED',
    spec: changedSpec({
      apps: [
        {
          ...app,
          seccomp: { digest: digest('x'), program: program.toString('base64') },
        },
      ],
    }),
  },
  ...(
    [
      ['missing', { disk_read: null, disk_write: null }],
      ['unknown', { ...rates, disk_trim: null }],
      ['null', null],
      ['empty', { ...rates, rng: {} }],
      [
        'refill',
        { ...rates, rng: { bytes: { burst: 0, capacity: 1, refill: 0 }, operations: null } },
      ],
      [
        'capacity',
        { ...rates, rng: { bytes: { burst: 0, capacity: 0, refill: 1 }, operations: null } },
      ],
      [
        'burst',
        {
          ...rates,
          rng: { bytes: { burst: 2 ** 50 + 1, capacity: 1, refill: 1 }, operations: null },
        },
      ],
    ] as const
  ).map(([what, bad]) => ({
    name: `spec-rates-${what}`,
    code: 'SPEC_MALFORMED',
    spec: changedSpec({ limits: { ...limits, rates: bad } }),
  })),
  { name: 'mismatch-tenant', code: 'SPEC_MISMATCH', record: { tenant: 'other' } },
  {
    name: 'mismatch-launch',
    code: 'SPEC_MISMATCH',
    record: { launch_id: '01935c7e-8b3a-7cc1-9f00-3d2c1b0a9f8f' },
  },
  {
    name: 'mismatch-level',
    code: 'SPEC_MISMATCH',
    record: { isolation: { level: 'container', kvm: null } },
  },
  {
    name: 'mismatch-kvm',
    code: 'SPEC_MISMATCH',
    record: { isolation: { level: 'vm', kvm: 'hardware' } },
  },
  { name: 'mismatch-node', code: 'SPEC_MISMATCH', spec: changedSpec({ node: 'host-2' }) },
  {
    name: 'level-not-listed',
    code: 'LEVEL_NOT_LISTED',
    spec: containerSpec,
    record: { isolation: { level: 'container', kvm: null } },
    context: changedContext({ levels: { acme: ['host'], other: ['container'] } }),
  },
  ...containerCases,
  { name: 'kvm-class', code: 'KVM_CLASS', context: changedContext({ kvm: 'hardware' }) },
  { name: 'kvm-none', code: 'KVM_CLASS', context: changedContext({ kvm: null }) },
  {
    name: 'kvm-software',
    code: 'SOFTWARE_KVM_NOT_ALLOWED',
    context: changedContext({ allow_software_kvm: false }),
  },
]

/** File name and content of every vector. */
export const vectors: ReadonlyMap<string, string> = new Map(
  [...tickets, ...records, ...specs].map((one) => [
    `${one.name}.jcs`,
    canonicalJson(vectorOf(one)),
  ]),
)

if (import.meta.main) {
  mkdirSync(directory, { recursive: true })
  for (const old of readdirSync(directory)) rmSync(path.join(directory, old))
  for (const [name, text] of vectors) writeFileSync(path.join(directory, name), text)
}
