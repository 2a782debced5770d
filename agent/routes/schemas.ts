/**
 * Shapes that several routes answer with. Responses are written through them, so that a member
 * nobody named here never leaves; bodies and queries are beside their routes.
 */
import { type TObject, type TSchema, type TString, Type } from '@fastify/type-provider-typebox'
import { DEVICE_COUNTERS, DEVICES, MACHINE_COUNTERS, USAGE } from '../../native/counters.ts'

export const closed: { readonly additionalProperties: false } = { additionalProperties: false }

const nullable = (schema: TSchema): TSchema => Type.Union([schema, Type.Null()])
const digest = Type.String({ pattern: '^sha256:[0-9a-f]{64}$' })
const instant = Type.String({ format: 'date-time', description: 'RFC 3339, UTC' })
const words = (values: readonly string[]): TSchema =>
  Type.Union(values.map((value) => Type.Literal(value)))

/** RFC 9457 problem document; the server registers it, and every route refers to it. */
export const PROBLEM: TSchema = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'A sentence: what was refused, why, what to do' }),
    code: Type.String({ description: 'The contract: stable, upper case' }),
    facts: Type.Record(Type.String(), Type.Unknown()),
    policies: Type.Array(Type.String(), { description: 'Policies that caused a refusal' }),
  },
  { ...closed, $id: 'Problem', title: 'Problem' },
)
const problemAnswer = { 'application/problem+json': { schema: { $ref: 'Problem#' } } }

/** Every route may answer a problem, and the document is the same everywhere. */
export const PROBLEMS: Readonly<Record<'4xx' | '5xx', object>> = {
  '4xx': { description: 'Refused; nothing was changed', content: problemAnswer },
  '5xx': { description: 'Not possible here and now', content: problemAnswer },
}

const exit: TSchema = Type.Object(
  {
    how: words(['code', 'signal', 'oom', 'vmm', 'failure']),
    value: Type.Integer(),
    guest_reported: Type.Boolean({ description: 'The guest’s word, not what the host saw' }),
    cause: Type.String(),
    text: nullable(Type.String()),
  },
  closed,
)

const problem: TSchema = Type.Object({ code: Type.String(), message: Type.String() }, closed)
const recordIndex: TSchema = nullable(
  Type.Integer({ description: 'Index of its launch.intent in the log' }),
)
const pod = {
  id: Type.String({ description: 'The pod’s: that of its first start' }),
  name: nullable(Type.String()),
  labels: Type.Record(Type.String(), Type.String()),
  annotations: Type.Record(Type.String(), Type.String()),
  launch: Type.String({ description: 'Its newest start’s, as records have it' }),
  attempt: Type.Integer({ minimum: 0, description: 'Number of that start; 0 is the first' }),
  restart: nullable(
    Type.Object(
      {
        rule: Type.String(),
        in_a_row: Type.Integer({ minimum: 0 }),
        due: nullable(instant),
      },
      closed,
    ),
  ),
  tenant: Type.String(),
  state: words([
    'requested',
    'launching',
    'running',
    'paused',
    'restarting',
    'exited',
    'failed',
    'refused',
  ]),
  health: nullable(
    Type.Object(
      {
        state: words(['starting', 'healthy', 'unhealthy']),
        since: nullable(instant),
        failing_streak: Type.Integer({ minimum: 0 }),
        last: nullable(
          Type.Object(
            {
              how: words(['code', 'signal', 'timeout', 'not-asked']),
              value: nullable(Type.Integer()),
              output: Type.String({ description: 'The end of what it wrote, 4096 bytes at most' }),
            },
            closed,
          ),
        ),
      },
      { ...closed, description: 'Of a running pod with a health check, in its guest’s words' },
    ),
  ),
  image: Type.Object({ reference: Type.String(), digest: nullable(digest) }, closed),
  isolation: nullable(words(['vm', 'container', 'host'])),
  identity: Type.String({ description: 'Who asked for it' }),
  spec: nullable(digest),
  record: recordIndex,
  created: instant,
  started: nullable(instant),
  ended: nullable(instant),
  exit: nullable(exit),
  problem: nullable(problem),
  facts: Type.Unknown({ description: 'What was decided and measured' }),
}
export const POD: TSchema = Type.Object(pod, closed)

const start: TSchema = Type.Object(
  {
    launch: Type.String(),
    attempt: Type.Integer({ minimum: 0 }),
    state: Type.String(),
    record: recordIndex,
    started: nullable(instant),
    ended: nullable(instant),
    exit: nullable(exit),
    problem: nullable(problem),
  },
  closed,
)
/** A pod with all of its starts that are kept, the first first. */
export const POD_WITH_STARTS: TSchema = Type.Object({ ...pod, starts: Type.Array(start) }, closed)
export const PODS: TSchema = Type.Object(
  { pods: Type.Array(POD), next: nullable(Type.String()) },
  closed,
)

const count = Type.Integer({ minimum: 0 })
const named = (names: readonly string[], schema: TSchema): TSchema =>
  Type.Object(Object.fromEntries(names.map((name) => [name, schema])), closed)

export const STATS: TSchema = Type.Object(
  {
    pod: Type.String(),
    state: words(['running', 'paused']),
    time: instant,
    usage: Type.Unsafe({
      ...named(USAGE, nullable(count)),
      description: 'As the host’s kernel counts it; null: it does not',
    }),
    counters: Type.Unsafe({
      ...nullable(
        Type.Object(
          {
            machine: named(MACHINE_COUNTERS, count),
            devices: named(DEVICES, named(DEVICE_COUNTERS, count)),
          },
          closed,
        ),
      ),
      description: 'The VMM’s, since the pod began; null while it is paused',
    }),
  },
  closed,
)

const idText: TString = Type.String({ maxLength: 64 })
export const POD_PARAMS: TObject<{ tenant: TString; pod: TString }> = Type.Object(
  { tenant: idText, pod: idText },
  closed,
)

const quotaLine = Type.Object({ used: Type.Integer(), limit: Type.Integer() }, closed)
export const TENANT: TSchema = Type.Object(
  {
    id: Type.String(),
    display: Type.String(),
    trust: words(['untrusted', 'verified', 'trusted']),
    state: words(['active', 'suspended']),
    created: instant,
    quotas: Type.Object(
      {
        vcpus: quotaLine,
        memory_mib: quotaLine,
        pods: quotaLine,
        launches_per_minute: Type.Object({ limit: Type.Integer() }, closed),
        volumes: Type.Object({ limit: Type.Integer() }, closed),
        volume_mib: Type.Object({ limit: Type.Integer() }, closed),
      },
      closed,
    ),
    egress: Type.Array(Type.String(), { description: 'What its pods may reach beside each other' }),
    ports: Type.Array(Type.String(), { description: 'Ports of the host that its pods may have' }),
    image_rule: nullable(Type.Object({ digest, rule: Type.Unknown() }, closed)),
  },
  closed,
)
export const TENANTS: TSchema = Type.Object(
  { tenants: Type.Array(TENANT), next: nullable(Type.String()) },
  closed,
)

export const TOKEN: TSchema = Type.Object(
  { token: Type.String(), jti: Type.String(), subject: Type.String(), expires: instant },
  closed,
)

const record: TSchema = Type.Object({ index: Type.Integer(), record: Type.Unknown() }, closed)
export const RECORD: TSchema = record
export const RECORDS: TSchema = Type.Object(
  { records: Type.Array(record), next: nullable(Type.Integer()) },
  closed,
)

export const EXCEPTION: TSchema = Type.Object(
  {
    finding: Type.String(),
    state: words(['active', 'expired']),
    reason: Type.String(),
    until: instant,
    created: instant,
    by: Type.String({ description: 'Who recorded it' }),
    record: Type.Integer({ description: 'Index of its record in the log' }),
  },
  closed,
)
export const EXCEPTIONS: TSchema = Type.Object({ exceptions: Type.Array(EXCEPTION) }, closed)

const check = Type.Object(
  {
    id: Type.String(),
    status: Type.Union(
      ['ok', 'warning', 'failed'].map((value) => Type.Literal(value)),
      { description: 'failed: severe, and no exception is in force' },
    ),
    severity: nullable(words(['severe', 'warning'])),
    detail: Type.String(),
    fix: nullable(Type.String({ description: 'What to do' })),
    exception: nullable(EXCEPTION),
  },
  closed,
)
export const DOCTOR: TSchema = Type.Object(
  {
    checks: Type.Array(check),
    findings: Type.Union([digest, Type.Null()], {
      description: 'Of the host’s findings, as launches record it; null when spawn does not answer',
    }),
  },
  closed,
)
export const HEALTH: TSchema = Type.Object({ status: Type.Literal('ok') }, closed)
export const VERSIONS: TSchema = Type.Object({ version: Type.String(), api: Type.String() }, closed)

const disk = {
  name: Type.String(),
  size_bytes: Type.Integer({ description: 'The most that it holds' }),
  used_bytes: Type.Integer({ description: 'What it takes of the host’s disk' }),
  created: instant,
  vm_only: Type.Boolean({
    description: 'A virtual machine could write to it: no weaker level of isolation gets it',
  }),
}
export const VOLUME: TSchema = Type.Object(
  {
    ...disk,
    pod: nullable(Type.String({ description: 'Launch of the pod that has it' })),
    snapshots: Type.Array(Type.Object(disk, closed)),
  },
  closed,
)
export const VOLUMES: TSchema = Type.Object({ volumes: Type.Array(VOLUME) }, closed)
