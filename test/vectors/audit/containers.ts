/** Tickets of containers: good ones, and specs in which members of two levels are mixed. */
import type { CanonicalObject } from '../../../policy/canonical.ts'
import { app, baseContext, baseSpec, containerSpec, descriptors } from './base.ts'

const context = { ...baseContext, levels: { acme: ['container'] } }
const record = { isolation: { level: 'container', kvm: null } }
const ofVm = (name: string): CanonicalObject => ({
  ...containerSpec,
  [name]: baseSpec[name] ?? null,
})

const mixed: readonly (readonly [string, CanonicalObject])[] = [
  ['kvm', ofVm('kvm')],
  ['machine', ofVm('machine')],
  ['vmm', ofVm('vmm')],
  ['kernel', ofVm('kernel')],
  ['template', ofVm('template')],
  ['init', { ...containerSpec, descriptors }],
  ['nothing', { ...containerSpec, container: null }],
  ['host-limits', { ...containerSpec, apps: [app] }],
]
const machines: readonly (readonly [string, CanonicalObject])[] = [
  ['level', { ...containerSpec, level: 'vm' }],
  ['both', { ...baseSpec, container: containerSpec['container'] ?? null }],
]

const bad = (
  name: string,
  spec: CanonicalObject,
  recorded: { readonly record?: CanonicalObject },
) => ({ name: `container-with-${name}`, code: 'SPEC_MALFORMED', spec, context, ...recorded })

interface ContainerCase {
  readonly name: string
  readonly code: string | null
  readonly spec: CanonicalObject
  readonly record?: CanonicalObject
  readonly context: CanonicalObject
}

export const containerCases: readonly ContainerCase[] = [
  { name: 'valid-level-listed', code: null, spec: containerSpec, record, context },
  ...mixed.map(([name, spec]) => bad(name, spec, { record })),
  ...machines.map(([name, spec]) => bad(name, spec, {})),
  {
    name: 'record-kvm-of-a-container',
    code: 'TICKET_RECORD',
    spec: containerSpec,
    record: { isolation: { level: 'container', kvm: 'software' } },
    context,
  },
]
