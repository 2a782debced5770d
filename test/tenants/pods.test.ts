import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { parseDigest } from '../../policy/index.ts'
import { isFinal, POD_STATES, type PodState, parseIdempotencyKey } from '../../tenants/index.ts'
import { predecessorsOf } from '../../tenants/pod-state.ts'
import { IDEMPOTENCY_MS } from '../../tenants/store/requests.ts'
import {
  acme,
  alone,
  bolt,
  newPodId,
  open,
  requested,
  running,
  START_MS,
  small,
  withTenant,
} from './fixtures.ts'

const digest = parseDigest(`sha256:${'d'.repeat(64)}`)

suite('tenants/pod-state', () => {
  test('allows exactly the drawn moves', () => {
    const moves = POD_STATES.flatMap((to) => predecessorsOf(to).map((from) => `${from}>${to}`))
    assert.deepEqual(moves.toSorted(), [
      'launching>failed',
      'launching>running',
      'requested>failed',
      'requested>launching',
      'requested>refused',
      'running>exited',
      'running>failed',
    ])
    assert.deepEqual(POD_STATES.filter(isFinal), ['exited', 'failed', 'refused'])
  })
})

suite('tenants: the life of a pod', () => {
  test('goes from request to exit, and keeps what is known', async (t) => {
    const { tenants, clock } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await requested(tenants, scope)
    await tenants.notePod(scope, id, { imageDigest: digest, level: 'vm' })
    await tenants.reserve(scope, id, alone)
    await tenants.movePod(scope, id, 'launching', { specDigest: digest, recordIndex: 7 })
    clock.nowMs += 1000
    await tenants.movePod(scope, id, 'running', { facts: { kvm: 'software' } })
    assert.equal((await tenants.getPod(scope, id)).stopRecorded, false)
    await tenants.notePod(scope, id, { stopRecorded: true })
    assert.deepEqual((await tenants.getPod(scope, id)).charge, small)
    clock.nowMs += 1000
    await tenants.movePod(scope, id, 'exited', { exit: { how: 'code', value: 0 } })
    const pod = await tenants.getPod(scope, id)
    assert.deepEqual(JSON.parse(JSON.stringify(pod)), {
      id,
      origin: id,
      attempt: 0,
      name: null,
      labels: {},
      annotations: {},
      restart: null,
      stopAsked: false,
      tenant: 'acme',
      state: 'exited',
      identity: 'uid:0',
      imageReference: 'registry.example.com/acme/web:1',
      imageDigest: digest,
      level: 'vm',
      specDigest: digest,
      recordIndex: 7,
      charge: null,
      createdMs: START_MS,
      startedMs: START_MS + 1000,
      endedMs: START_MS + 2000,
      exit: { how: 'code', value: 0 },
      problem: null,
      facts: { kvm: 'software' },
      stopRecorded: true,
    })
    assert.equal((await tenants.getTenant(scope)).quotas.vcpus.used, 0)
  })

  test('does not launch what holds no reservation', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await requested(tenants, scope)
    await assert.rejects(tenants.movePod(scope, id, 'launching'), { code: 'POD_STATE_CONFLICT' })
    assert.equal((await tenants.getPod(scope, id)).state, 'requested')
  })

  test('refuses every move that is not drawn, and leaves state and quota alone', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const bad: readonly PodState[] = ['requested', 'launching', 'running', 'refused']
    const { id } = await running(tenants, scope)
    for (const to of bad) {
      await assert.rejects(tenants.movePod(scope, id, to), {
        code: 'POD_STATE_CONFLICT',
        facts: { pod: id, state: 'running' },
      })
    }
    assert.equal((await tenants.getTenant(scope)).quotas.pods.used, 1)
    await tenants.movePod(scope, id, 'failed', { problem: { code: 'VMM', message: 'It died.' } })
    for (const to of POD_STATES) {
      await assert.rejects(tenants.movePod(scope, id, to), { code: 'POD_STATE_CONFLICT' })
    }
    await assert.rejects(tenants.notePod(scope, id, { facts: 1 }), { code: 'POD_STATE_CONFLICT' })
    assert.deepEqual((await tenants.getPod(scope, id)).problem, {
      code: 'VMM',
      message: 'It died.',
    })
  })

  test('removes ended pods only', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await running(tenants, scope)
    await assert.rejects(tenants.deletePod(scope, id), { code: 'POD_STATE_CONFLICT' })
    await tenants.movePod(scope, id, 'exited')
    await tenants.deletePod(scope, id)
    await assert.rejects(tenants.getPod(scope, id), { code: 'POD_NOT_FOUND' })
    await assert.rejects(tenants.deletePod(scope, id), { code: 'POD_NOT_FOUND' })
  })

  test('lists the newest first, page by page, and unfinished ones of all tenants', async (t) => {
    const { tenants } = open(t)
    const mine = await withTenant(tenants)
    const other = await withTenant(tenants, bolt)
    const ids = []
    for (let n = 0; n < 5; n += 1) ids.push((await requested(tenants, mine)).id)
    const first = await tenants.listPods(mine, { limit: 3, cursor: null })
    const rest = await tenants.listPods(mine, { limit: 3, cursor: first.at(-1)?.id ?? null })
    assert.deepEqual(
      [...first, ...rest].map(({ id }) => id),
      ids.toReversed(),
    )
    const { id } = await running(tenants, other)
    await tenants.movePod(mine, ids[0] ?? id, 'refused')
    const unfinished = await tenants.unfinishedPods()
    assert.deepEqual(
      unfinished.map(({ scope, pod }) => [scope.tenant, pod.id]),
      [...ids.slice(1).map((one) => ['acme', one]), ['bolt', id]],
    )
  })

  test('refuses facts that are too large or not canonical', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await requested(tenants, scope)
    await assert.rejects(tenants.notePod(scope, id, { facts: 'x'.repeat(65_536) }), RangeError)
    await assert.rejects(tenants.notePod(scope, id, { facts: 0.5 }), { code: 'NOT_CANONICAL' })
  })
})

suite('tenants: idempotency', () => {
  const other = parseDigest(`sha256:${'e'.repeat(64)}`)
  const request = { key: parseIdempotencyKey('k-1'), bodyDigest: digest }
  const pod = (changes = {}): Parameters<ReturnType<typeof open>['tenants']['createPod']>[1] => ({
    id: newPodId(),
    imageReference: 'r',
    request,
    ...changes,
  })

  test('answers a repeated request with the first answer, and makes no second pod', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const first = pod()
    assert.equal((await tenants.createPod(scope, first)).kind, 'created')
    await assert.rejects(tenants.createPod(scope, pod()), {
      code: 'IDEMPOTENCY_IN_FLIGHT',
      facts: { pod: first.id },
    })
    assert.deepEqual(await tenants.unansweredRequests(), [{ tenant: acme, pod: first.id }])
    await tenants.answerRequest(scope, first.id, { status: 201, body: '{"id":1}' })
    await tenants.answerRequest(scope, first.id, { status: 500, body: 'late' })
    assert.deepEqual(await tenants.createPod(scope, pod()), {
      kind: 'replay',
      answer: { status: 201, body: '{"id":1}' },
    })
    const changed = pod({ request: { ...request, bodyDigest: other } })
    await assert.rejects(tenants.createPod(scope, changed), { code: 'IDEMPOTENCY_KEY_REUSED' })
    assert.equal((await tenants.listPods(scope, { limit: 9, cursor: null })).length, 1)
    assert.deepEqual(await tenants.unansweredRequests(), [])
  })

  test('gives a key back that has no answer, and only such a one', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const first = pod()
    await tenants.createPod(scope, first)
    await tenants.releaseRequest(scope, newPodId())
    await assert.rejects(tenants.createPod(scope, pod()), { code: 'IDEMPOTENCY_IN_FLIGHT' })
    await tenants.releaseRequest(scope, first.id)
    const second = pod()
    assert.equal((await tenants.createPod(scope, second)).kind, 'created')
    // An answer of the first, late, is nobody's.
    await tenants.answerRequest(scope, first.id, { status: 503, body: 'late' })
    await tenants.answerRequest(scope, second.id, { status: 201, body: '{}' })
    await tenants.releaseRequest(scope, second.id)
    assert.equal((await tenants.createPod(scope, pod())).kind, 'replay')
  })

  test('starts one pod for twenty equal requests at once', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, async () => await tenants.createPod(scope, pod())),
    )
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
    assert.equal((await tenants.listPods(scope, { limit: 50, cursor: null })).length, 1)
  })

  test('keeps keys of different tenants and identities apart', async (t) => {
    const { tenants } = open(t)
    await withTenant(tenants)
    await withTenant(tenants, bolt)
    for (const [tenant, subject] of [
      [acme, 'acme/a'],
      [acme, 'acme/b'],
      [bolt, 'bolt/a'],
    ] as const) {
      const caller = { kind: 'tenant', tenant, subject, jti: 'j', expiresMs: 0 } as const
      const scope = await tenants.scope(caller, tenant)
      assert.equal((await tenants.createPod(scope, pod())).kind, 'created', subject)
    }
  })

  test('forgets a key after a day', async (t) => {
    const { tenants, clock } = open(t)
    const scope = await withTenant(tenants)
    await tenants.createPod(scope, pod())
    clock.nowMs += IDEMPOTENCY_MS - 1
    await assert.rejects(tenants.createPod(scope, pod()), { code: 'IDEMPOTENCY_IN_FLIGHT' })
    clock.nowMs += 1
    assert.equal((await tenants.createPod(scope, pod())).kind, 'created')
  })

  test('leaves the key free when the pod cannot be written', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await requested(tenants, scope)
    await assert.rejects(tenants.createPod(scope, pod({ id })), { code: 'POD_EXISTS' })
    assert.equal((await tenants.createPod(scope, pod())).kind, 'created')
  })

  for (const key of ['', 'a b', 'a\n', 'ä', 'k'.repeat(129)]) {
    test(`refuses the key ${JSON.stringify(key).slice(0, 10)}`, () => {
      assert.throws(() => parseIdempotencyKey(key), { code: 'BAD_NOUN' })
    })
  }
})
