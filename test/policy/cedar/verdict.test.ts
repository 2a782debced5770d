/** Each way in which Cedar fails open, shown on Cedar itself and then closed by our wrapper. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  type AuthorizationAnswer,
  isAuthorized,
  preparsePolicySet,
  preparseSchema,
  statefulIsAuthorized,
  validate,
} from '@cedar-policy/cedar-wasm/nodejs'
import { cannedQuestions } from '../../../policy/cedar/canned.ts'
import { ActivePolicies } from '../../../policy/cedar/policies.ts'
import { type CedarCall, type LaunchQuery, toCedarCall } from '../../../policy/cedar/query.ts'
import { CEDAR_SCHEMA } from '../../../policy/cedar/schema.ts'
import { verdictOf } from '../../../policy/cedar/verdict.ts'
import { defaults } from '../fixtures.ts'

const allowed = (): LaunchQuery => {
  const found = cannedQuestions().find(
    ({ name }) => name === 'own caller, untrusted tenant, level vm, signed',
  )
  assert.ok(found)
  return found.query
}

const container = (): LaunchQuery => ({ ...allowed(), isolation: 'container' })

const permitAll = '@reason("x") permit(principal, action, resource);'
const forbidUntrusted = `@reason("x") forbid(principal, action, resource is Casemate::Pod)
  unless { resource.tenant.trust == Casemate::Trust::"trusted" };`

/** Cedar itself, with our schema, on a set that is parsed for this call. */
const cedar = (texts: Record<string, string>, call: CedarCall): AuthorizationAnswer => {
  assert.equal(preparseSchema('test', CEDAR_SCHEMA).type, 'success')
  assert.equal(preparsePolicySet('test', { staticPolicies: texts }).type, 'success')
  return statefulIsAuthorized({
    ...call,
    preparsedPolicySetId: 'test',
    preparsedSchemaName: 'test',
    validateRequest: true,
  })
}

const decisionOf = (answer: AuthorizationAnswer): string =>
  answer.type === 'success' ? answer.response.decision : 'failure'

suite('policy/cedar/verdict: the ways Cedar fails open', () => {
  test('denies when a forbid reads an entity that is absent, which Cedar allows', () => {
    const call = toCedarCall(container())
    const entities = call.entities.filter(
      ({ uid }) => !('type' in uid && uid.type === 'Casemate::Tenant'),
    )
    const texts = { all: permitAll, forbid: forbidUntrusted }
    const answer = cedar(texts, { ...call, entities })
    assert.equal(decisionOf(answer), 'allow', 'the trap is gone from Cedar')
    const verdict = verdictOf(answer)
    assert.equal(verdict.kind, 'error')
    assert.deepEqual(verdict.policyIds, ['forbid'])
  })

  test('denies when a forbid overflows, which Cedar allows', () => {
    const overflow = `@reason("x") forbid(principal, action, resource)
      when { context.memory_mib * 9223372036854775807 > 0 };`
    const texts = { all: permitAll, overflow }
    assert.equal(decisionOf(cedar(texts, toCedarCall(allowed()))), 'allow', 'the trap is gone')
    const verdict = new ActivePolicies(texts, new Map()).ask(allowed())
    assert.equal(verdict.kind, 'error')
    assert.deepEqual(verdict.policyIds, ['overflow'])
  })

  test('denies when the context lacks a member, which Cedar allows without a schema', () => {
    const { principal, action, resource, entities } = toCedarCall(container())
    const forbid = `forbid(principal, action, resource) when { context.isolation != Casemate::IsolationLevel::"vm" };`
    const policies = { staticPolicies: { all: permitAll, forbid } }
    const bare = isAuthorized({ principal, action, resource, entities, context: {}, policies })
    assert.equal(decisionOf(bare), 'allow', 'the trap is gone from Cedar')
    assert.equal(verdictOf(bare).kind, 'error')
    // With the schema, as we always ask, it is not even evaluated.
    const strict = cedar({ all: permitAll, forbid }, { ...toCedarCall(container()), context: {} })
    assert.equal(strict.type, 'failure')
    assert.equal(verdictOf(strict).kind, 'error')
  })

  test('denies an attribute too many and a level that does not exist', () => {
    const call = toCedarCall(allowed())
    const extra = cedar({ all: permitAll }, { ...call, context: { ...call.context, sudo: true } })
    assert.equal(verdictOf(extra).kind, 'error')
    const isolation = { __entity: { type: 'Casemate::IsolationLevel', id: 'none' } }
    const odd = cedar({ all: permitAll }, { ...call, context: { ...call.context, isolation } })
    assert.equal(verdictOf(odd).kind, 'error')
  })

  test('denies when Cedar throws, and answers again afterwards', () => {
    for (const bad of [
      { vcpus: 1n },
      { vcpus: 1.5 },
      { vcpus: undefined },
      { capabilities: null },
    ]) {
      const verdict = defaults.ask(Object.assign(allowed(), bad))
      assert.equal(verdict.kind, 'error', JSON.stringify(Object.keys(bad)))
    }
    assert.equal(defaults.ask(allowed()).kind, 'allowed')
  })

  test('denies on an allow that carries an error, whatever else it says', () => {
    const answer = {
      type: 'success',
      warnings: [],
      response: {
        decision: 'allow',
        diagnostics: {
          reason: ['all'],
          errors: [
            {
              policyId: 'b',
              error: { message: 'bad', help: null, code: null, url: null, severity: null },
            },
          ],
        },
      },
    } satisfies AuthorizationAnswer
    assert.deepEqual(verdictOf(answer), { kind: 'error', policyIds: ['b'], problem: 'bad' })
  })

  test('knows that validate() says success of a set with errors in it', () => {
    const bad = 'forbid(principal, action, resource) when { context.isolaton };'
    const answer = validate({ schema: CEDAR_SCHEMA, policies: { staticPolicies: { bad } } })
    assert.equal(answer.type, 'success', 'the trap is gone from Cedar')
    assert.ok(answer.type === 'success' && answer.validationErrors.length > 0)
  })
})

suite('policy/cedar: asking', () => {
  test('answers every canned question as it must be, with the shipped policies', () => {
    const wrong = cannedQuestions().filter(({ query, mustDeny }) => {
      const { kind } = defaults.ask(query)
      return mustDeny ? kind !== 'denied' : kind !== 'allowed'
    })
    assert.deepEqual(
      wrong.map(({ name }) => name),
      [],
    )
    assert.equal(cannedQuestions().length, 81)
  })

  test('keeps two sets apart that are asked in turn', () => {
    const lax = new ActivePolicies({ all: permitAll }, new Map())
    for (let round = 0; round < 3; round += 1) {
      assert.equal(lax.ask(container()).kind, 'allowed')
      assert.equal(defaults.ask(container()).kind, 'denied')
    }
  })

  test('gives all forbids that fired, sorted', () => {
    const query: LaunchQuery = {
      ...container(),
      capabilities: ['CAP_SYS_ADMIN'],
      signature: { accepted: false, keyIds: [] },
    }
    assert.deepEqual(defaults.ask(query), {
      kind: 'denied',
      policyIds: [
        'capabilities.baseline',
        'capabilities.untrusted',
        'image.signature-accepted',
        'isolation.untrusted-needs-vm',
      ],
    })
  })

  test('takes ids and strings with quotes and newlines as data', () => {
    const odd = 'x" || true || "\n*'
    const query: LaunchQuery = {
      ...allowed(),
      principal: { kind: 'operator', uid: 0 },
      image: { ...allowed().image, repository: odd, registry: odd },
    }
    assert.equal(defaults.ask(query).kind, 'allowed')
    assert.equal(defaults.ask({ ...query, isolation: 'container' }).kind, 'denied')
  })
})
