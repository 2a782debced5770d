/** Logins out of files of skopeo, podman and docker. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { UsageError } from '../../../agent/cli/arguments.ts'
import { loginFor } from '../../../agent/cli/authfile.ts'

const SECRET = 'pass:word'
const entry = (username: string): object => ({
  auth: Buffer.from(`${username}:${SECRET}`).toString('base64'),
})

function fileOf(t: TestContext, content: unknown): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'casemate-auth-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = path.join(folder, 'auth.json')
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  return file
}

suite('agent/cli authfile', () => {
  test('finds the most specific login, and none where there is none', (t) => {
    const file = fileOf(t, {
      auths: {
        'registry.example:5000': entry('all'),
        'registry.example:5000/acme': entry('acme'),
        'registry.example:5000/acme/web': entry('web'),
        'https://docker.example/v1/': entry('old'),
        'https://index.docker.io/v1/': entry('hub'),
      },
      credsStore: 'desktop',
    })
    const found: readonly (readonly [string, string | undefined])[] = [
      ['registry.example:5000/other/x:1', 'all'],
      ['registry.example:5000/acmeplus:1', 'all'],
      ['registry.example:5000/acme/api:1', 'acme'],
      ['registry.example:5000/acme/web:1', 'web'],
      ['registry.example:5000/acme/web/more', 'web'],
      ['docker.example/x', 'old'],
      ['busybox', 'hub'],
      ['docker.io/acme/web', 'hub'],
      ['registry.example/acme/web', undefined],
      ['registry.example:5001/acme', undefined],
    ]
    for (const [reference, username] of found) {
      const expected = username === undefined ? null : { username, password: SECRET }
      assert.deepEqual(loginFor(file, reference), expected, reference)
    }
  })

  test('says what it cannot use, and never what is in the file', (t) => {
    const bad: readonly (readonly [unknown, RegExp])[] = [
      [`{"auths":{"r.example":{"auth":"${SECRET}"`, /is no JSON/u],
      [{ auths: { 'r.example': { identitytoken: SECRET } } }, /identity token for r\.example/u],
      [{ auths: { 'r.example': {} }, credsStore: 'desktop' }, /helpers are not run/u],
      [{ credHelpers: { 'r.example': 'gcloud' } }, /helpers are not run/u],
      [{ auths: { 'r.example': { auth: 'OnB3' } } }, /no username:password/u],
      [{ auths: { 'r.example': { auth: 'YWJj' } } }, /no username:password/u],
      [{ auths: { 'r.example': { auth: 7 } } }, /no password/u],
    ]
    for (const [content, sentence] of bad) {
      const file = fileOf(t, content)
      assert.throws(
        () => loginFor(file, 'r.example/x'),
        (error) =>
          error instanceof UsageError &&
          sentence.test(error.message) &&
          !error.message.includes(SECRET) &&
          error.cause === undefined,
        String(sentence),
      )
    }
    for (const content of [{}, [], null, 7, { auths: [] }, { auths: null }]) {
      assert.equal(loginFor(fileOf(t, content), 'r.example/x'), null)
    }
  })
})
