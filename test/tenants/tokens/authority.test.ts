/** Every token that must not open anything; each is made by jose or by hand, none is mocked. */
import assert from 'node:assert/strict'
import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { type JWTPayload, SignJWT } from 'jose'
import { parseIdentityName, type Tenants, type TenantsErrorCode } from '../../../tenants/index.ts'
import { TOKEN_KEY_FILE } from '../../../tenants/store/key-file.ts'
import {
  AUDIENCE,
  acme,
  bolt,
  type Fixture,
  ISSUER,
  open,
  root,
  START_MS,
  withTenant,
} from '../fixtures.ts'

const name = parseIdentityName('ci')
const START_S = START_MS / 1000

interface Issued extends Fixture {
  readonly token: string
  readonly jti: string
  readonly key: KeyObject
  readonly kid: string
  readonly claims: JWTPayload
}

/** A live token, and what is needed to forge variants of it with the host's own key. */
const issued = async (t: TestContext): Promise<Issued> => {
  const fixture = open(t)
  const scope = await withTenant(fixture.tenants)
  const operator = fixture.tenants.operator(root)
  const wanted = { name, lifetimeMs: null }
  const { token, jti } = await fixture.tenants.issueToken(operator, scope, wanted)
  const key = createPrivateKey(readFileSync(path.join(fixture.stateDir, TOKEN_KEY_FILE)))
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const claims = {
    iss: ISSUER,
    aud: AUDIENCE,
    sub: 'acme/ci',
    client_id: 'acme/ci',
    scope: 'tenant',
    tenant: 'acme',
    iat: START_S,
    exp: START_S + 3600,
    jti,
  }
  const kid = createHash('sha256').update(spki).digest('base64url')
  return { ...fixture, token, jti, key, kid, claims }
}

const forge = async (
  { claims, key, kid }: Issued,
  changes: Readonly<Record<string, unknown>> = {},
  header: Record<string, unknown> = {},
): Promise<string> =>
  await new SignJWT({ ...claims, ...changes })
    .setProtectedHeader({ alg: 'EdDSA', typ: 'at+jwt', kid, ...header })
    .sign(key)

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

const refuse = async (tenants: Tenants, token: string, code: TenantsErrorCode): Promise<void> => {
  await assert.rejects(tenants.verifyToken(token), { code })
}

suite('tenants/tokens', () => {
  test('accepts what it issued, until its end', async (t) => {
    const { tenants, token, jti, clock } = await issued(t)
    assert.deepEqual(await tenants.verifyToken(token), {
      kind: 'tenant',
      tenant: 'acme',
      subject: 'acme/ci',
      jti,
      expiresMs: START_MS + 3_600_000,
    })
    clock.nowMs = START_MS + 3_629_000
    assert.equal((await tenants.verifyToken(token)).jti, jti)
    clock.nowMs = START_MS + 3_631_000
    await refuse(tenants, token, 'TOKEN_EXPIRED')
  })

  test('accepts the very claims that the forgeries below change', async (t) => {
    const all = await issued(t)
    assert.equal((await all.tenants.verifyToken(await forge(all))).subject, 'acme/ci')
  })

  test('is void once revoked, and for ever', async (t) => {
    const { tenants, token, jti } = await issued(t)
    const scope = await tenants.scope(root, acme)
    const other = await withTenant(tenants, bolt)
    assert.equal(await tenants.revokeToken(other, jti), false)
    await tenants.verifyToken(token)
    assert.equal(await tenants.revokeToken(scope, jti), true)
    assert.equal(await tenants.revokeToken(scope, jti), false)
    await refuse(tenants, token, 'TOKEN_REVOKED')
    assert.deepEqual(
      (await tenants.listTokens(scope)).map((one) => [one.name, one.revokedMs]),
      [['ci', START_MS]],
    )
    assert.deepEqual(await tenants.listTokens(other), [])
  })

  test('is void when its jti was not issued here, or for another tenant', async (t) => {
    const all = await issued(t)
    await withTenant(all.tenants, bolt)
    await refuse(all.tenants, await forge(all, { jti: 'another' }), 'TOKEN_REVOKED')
    const foreign = { tenant: 'bolt', sub: 'bolt/ci', client_id: 'bolt/ci' }
    await refuse(all.tenants, await forge(all, foreign), 'TOKEN_REVOKED')
  })

  for (const lifetimeMs of [0, 999, 1000.5, 86_400_001, Number.NaN]) {
    test(`is not issued for ${lifetimeMs} ms`, async (t) => {
      const { tenants } = open(t)
      const scope = await withTenant(tenants)
      const operator = tenants.operator(root)
      await assert.rejects(tenants.issueToken(operator, scope, { name, lifetimeMs }), {
        code: 'BAD_NOUN',
      })
    })
  }

  test('is not issued for a tenant that does not exist', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const operator = tenants.operator(root)
    const gone = Object.assign(scope, { tenant: bolt })
    await assert.rejects(tenants.issueToken(operator, gone, { name, lifetimeMs: null }), {
      code: 'TENANT_NOT_FOUND',
    })
  })

  for (const bad of ['', 'A', '-a', 'a-', 'a/b', 'a'.repeat(64)]) {
    test(`has no identity named '${bad.slice(0, 8)}'`, () => {
      assert.throws(() => parseIdentityName(bad), { code: 'BAD_NOUN' })
    })
  }
})

suite('tenants/tokens: claims', () => {
  for (const [what, changes, code] of [
    ['expired', { exp: START_S - 31 }, 'TOKEN_EXPIRED'],
    ['of the future', { iat: START_S + 31 }, 'TOKEN_INVALID'],
    ['not yet valid', { nbf: START_S + 31 }, 'TOKEN_INVALID'],
    ['of a lifetime beyond the limit', { exp: START_S + 86_401 }, 'TOKEN_INVALID'],
    [
      'issued longer ago than any lifetime',
      { iat: START_S - 86_431, exp: START_S + 1 },
      'TOKEN_EXPIRED',
    ],
    ['without end', { exp: undefined }, 'TOKEN_INVALID'],
    ['without iat', { iat: undefined }, 'TOKEN_INVALID'],
    ['without jti', { jti: undefined }, 'TOKEN_INVALID'],
    ['without audience', { aud: undefined }, 'TOKEN_INVALID'],
    ['for another audience', { aud: `${AUDIENCE}/` }, 'TOKEN_INVALID'],
    ['for two audiences', { aud: [AUDIENCE, 'https://other.example.com'] }, 'TOKEN_INVALID'],
    ['for a list of one audience', { aud: [AUDIENCE] }, 'TOKEN_INVALID'],
    ['of another issuer', { iss: `${ISSUER}/` }, 'TOKEN_INVALID'],
    ['of the issuer in capitals', { iss: ISSUER.toUpperCase() }, 'TOKEN_INVALID'],
    ['without subject', { sub: undefined }, 'TOKEN_INVALID'],
    [
      'with the subject of another tenant',
      { sub: 'bolt/ci', client_id: 'bolt/ci' },
      'TOKEN_INVALID',
    ],
    ['with a client that is not the subject', { client_id: 'acme/other' }, 'TOKEN_INVALID'],
    ['with a longer subject', { sub: 'acme/ci/x', client_id: 'acme/ci/x' }, 'TOKEN_INVALID'],
    ['of another scope', { scope: 'operator' }, 'TOKEN_INVALID'],
    ['of two scopes', { scope: 'tenant operator' }, 'TOKEN_INVALID'],
    ['without tenant', { tenant: undefined }, 'TOKEN_INVALID'],
    ['with a tenant that is no id', { tenant: '../acme' }, 'TOKEN_INVALID'],
  ] as const) {
    test(`refuses a token ${what}`, async (t) => {
      const all = await issued(t)
      await refuse(all.tenants, await forge(all, { ...changes }), code)
    })
  }
})

suite('tenants/tokens: headers and signatures', () => {
  for (const [what, header] of [
    ['of an ID token', { typ: 'JWT' }],
    ['without typ', { typ: undefined }],
    ['whose algorithm goes by another name', { alg: 'Ed25519' }],
    ['without kid', { kid: undefined }],
    ['with the kid of no key', { kid: 'other' }],
    ['with a path as kid', { kid: '../../etc/passwd' }],
    ['with an object as kid', { kid: {} }],
    ['with an extension it does not know', { crit: ['x'], x: 1 }],
  ] as const) {
    test(`refuses a token ${what}`, async (t) => {
      const all = await issued(t)
      const payload = part(all.claims)
      const protectedHeader = part({ alg: 'EdDSA', typ: 'at+jwt', kid: all.kid, ...header })
      const signature = sign(null, Buffer.from(`${protectedHeader}.${payload}`), all.key)
      const token = `${protectedHeader}.${payload}.${signature.toString('base64url')}`
      await refuse(all.tenants, token, 'TOKEN_INVALID')
    })
  }

  test('refuses a token of another key, also when it brings that key along', async (t) => {
    const all = await issued(t)
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    const stranger = { ...all, key: privateKey }
    await refuse(all.tenants, await forge(stranger), 'TOKEN_INVALID')
    const jwk = publicKey.export({ format: 'jwk' })
    await refuse(all.tenants, await forge(stranger, {}, { jwk }), 'TOKEN_INVALID')
    await refuse(
      all.tenants,
      await forge(stranger, {}, { jku: 'https://evil.example.com' }),
      'TOKEN_INVALID',
    )
  })

  test('refuses alg none, in every spelling', async (t) => {
    const { tenants, claims, kid } = await issued(t)
    for (const alg of ['none', 'None', 'NONE', '']) {
      const token = `${part({ alg, typ: 'at+jwt', kid })}.${part(claims)}.`
      await refuse(tenants, token, 'TOKEN_INVALID')
    }
  })

  test('refuses HS256 keyed with the public key', async (t) => {
    const { tenants, claims, kid, key } = await issued(t)
    const body = `${part({ alg: 'HS256', typ: 'at+jwt', kid })}.${part(claims)}`
    const publicKey = createPublicKey(key)
    for (const secret of [
      publicKey.export({ type: 'spki', format: 'pem' }),
      publicKey.export({ type: 'spki', format: 'der' }),
      Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'),
    ]) {
      const mac = createHmac('sha256', secret).update(body).digest('base64url')
      await refuse(tenants, `${body}.${mac}`, 'TOKEN_INVALID')
    }
  })

  test('refuses a token with any character changed or cut off', async (t) => {
    const { tenants, token } = await issued(t)
    for (let at = 0; at < token.length; at += 7) {
      const other = token[at] === 'A' ? 'B' : 'A'
      await refuse(tenants, token.slice(0, at) + other + token.slice(at + 1), 'TOKEN_INVALID')
      await refuse(tenants, token.slice(0, at), 'TOKEN_INVALID')
    }
  })

  test('refuses a megabyte without reading it, and 8193 bytes of a right token', async (t) => {
    const all = await issued(t)
    await refuse(all.tenants, 'a'.repeat(1_048_576), 'TOKEN_TOO_LARGE')
    await refuse(all.tenants, await forge(all, { pad: 'x'.repeat(8192) }), 'TOKEN_TOO_LARGE')
  })

  for (const rubbish of ['', '.', '..', 'a.b.c', '{}', 'Bearer x', '\0', 'é.é.é']) {
    test(`refuses ${JSON.stringify(rubbish)}`, async (t) => {
      const { tenants } = open(t)
      await refuse(tenants, rubbish, 'TOKEN_INVALID')
    })
  }

  test('says the same of every token that is not right', async (t) => {
    const all = await issued(t)
    const messages = new Set<string>()
    for (const token of [
      'a.b.c',
      await forge(all, { scope: 'x' }),
      await forge(all, {}, { typ: 'JWT' }),
    ]) {
      await all.tenants.verifyToken(token).catch((error: unknown) => messages.add(String(error)))
    }
    assert.equal(messages.size, 1)
  })
})
