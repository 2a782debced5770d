/**
 * Launches from a private registry, Debian's docker-registry with htpasswd: with the right login, a
 * wrong one and none, through the API and the command line. Afterwards the password is looked for in
 * everything that the agent has written.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, suite, type TestContext, test } from 'node:test'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { generateSigningKey, readSigningKey } from '../../agent/images/index.ts'
import { canonicalJson } from '../../policy/canonical.ts'
import { member, type Reply, startAgent, type TestAgent } from '../agent/harness.ts'
import { freshImage } from './images-fresh.ts'
import { missing, type Peer, startDockerRegistry } from './images-programs.ts'

const login = { username: 'acme', password: 'correct-horse-battery' }
const wrong = { username: 'acme', password: 'wrong-horse-battery' }
const cli = path.resolve(import.meta.dirname, '../../agent/cli/main.ts')

/** All files below a directory. */
function filesBelow(directory: string): readonly string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => path.join(directory, name))
    .filter((place) => statSync(place).isFile())
}

/** What would give a password away: itself, as it is sent, and what guesses could be checked with. */
function traces({ username, password }: typeof login, bodies: readonly object[]): string[] {
  const pair = `${username}:${password}`
  const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
  const plain = [password, Buffer.from(pair).toString('base64'), sha256(password), sha256(pair)]
  return [...plain, ...bodies.map((body) => sha256(canonicalJson({ ...body })))]
}

suite('agent/images private registries', { skip: missing('docker-registry') }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'casemate-private-'))
  let registry: Peer
  before(async () => {
    registry = await startDockerRegistry(folder, login)
  })
  after(() => {
    registry.stop()
    rmSync(folder, { recursive: true })
  })

  interface Stage {
    readonly agent: TestAgent
    readonly image: string
    readonly lines: string[]
    /** Tokens of tenants that may run the image. */
    readonly tokens: Readonly<Record<'acme' | 'other', string>>
    launch(tenant: 'acme' | 'other', key: string, credentials?: typeof login): Promise<Reply>
    /** Bodies with credentials that were sent. */
    readonly bodies: object[]
  }

  /** A signed private image, and two tenants whose rule admits it. */
  async function stage(t: TestContext): Promise<Stage> {
    const { session, tagged } = await freshImage(registry.host, folder, {
      kind: 'password',
      ...login,
    })
    const pair = generateSigningKey()
    await session.sign(readSigningKey(pair.privatePem, null), null)
    await session.close()
    const lines: string[] = []
    const options = {
      insecureRegistries: [registry.host],
      logTo: (line: string) => void lines.push(line),
    }
    const agent = await startAgent(t, options)
    const keys = [{ id: 'release', pem: pair.publicPem }]
    const authority = { type: 'cosign-key', keys, transparency: 'none' }
    const anyOf = [{ ...authority, identityMatch: 'exactRepository' }]
    const require = { all: [{ anyOf, threshold: 1 }] }
    const rules = [{ name: 'all', match: [`${registry.host}/**`], require }]
    const image_rule = { schemaVersion: 1, default: 'deny', rules }
    const tokens = {
      acme: await agent.onboard('acme', { image_rule }),
      other: await agent.onboard('other', { image_rule }),
    }
    const bodies: object[] = []
    return {
      agent,
      image: tagged,
      lines,
      tokens,
      bodies,
      launch: (tenant, key, credentials) => {
        const body = { image: tagged, registry_credentials: credentials }
        if (credentials !== undefined) bodies.push(body)
        return agent.tenant(tokens[tenant], {
          method: 'POST',
          path: `/v1/tenants/${tenant}/pods`,
          body,
          headers: { 'idempotency-key': key },
        })
      },
    }
  }

  const codeOf = (reply: Reply): unknown => member(reply.json, 'code')
  const blobsOf = ({ agent }: Stage, tenant: string): readonly string[] => {
    const all = filesBelow(agent.stateDir)
    return all.filter((file) => file.includes(path.join('images', 'blobs', tenant)))
  }

  /** Where the images end here: pulled and checked, and the spawn of this test starts no workers. */
  const PULLED = 'LAUNCH_FAILED'

  test('pulls with the right login for this launch, and for nobody else and not again', async (t) => {
    const place = await stage(t)
    for (const [key, credentials] of [
      ['none', undefined],
      ['wrong', wrong],
    ] as const) {
      const refused = await place.launch('acme', key, credentials)
      assert.deepEqual([refused.status, codeOf(refused)], [422, 'REGISTRY_REFUSED'])
      assert.match(refused.text, /Give credentials that may read the repository/u)
      assert.deepEqual(blobsOf(place, 'acme'), [])
    }
    assert.equal(codeOf(await place.launch('acme', 'right', login)), PULLED)
    assert.equal(blobsOf(place, 'acme').length, 1)
    assert.equal(codeOf(await place.launch('other', 'none')), 'REGISTRY_REFUSED')
    assert.deepEqual(blobsOf(place, 'other'), [])
    assert.equal(codeOf(await place.launch('acme', 'again')), 'REGISTRY_REFUSED')
  })

  test('keeps neither a login nor anything to test one with', async (t) => {
    const place = await stage(t)
    assert.equal(codeOf(await place.launch('acme', 'a', wrong)), 'REGISTRY_REFUSED')
    // The same request with another login is the same request: its answer is kept.
    assert.equal(codeOf(await place.launch('acme', 'a', login)), 'REGISTRY_REFUSED')
    assert.equal(codeOf(await place.launch('acme', 'b', login)), PULLED)
    const { requests } = place.agent.spawn
    await place.agent.end()
    const secrets = [...traces(login, place.bodies), ...traces(wrong, place.bodies)]
    const written = filesBelow(place.agent.directory).map((file) => readFileSync(file))
    assert.ok(
      written.some((bytes) => bytes.includes('REGISTRY_REFUSED')),
      'the log is among it',
    )
    const said = [...place.lines, JSON.stringify(requests)].map((line) => Buffer.from(line))
    assert.ok(said.some((line) => line.includes('/v1/tenants/acme/pods')))
    for (const secret of secrets) {
      assert.ok(![...written, ...said].some((bytes) => bytes.includes(secret)), secret)
    }
  })

  test('refuses a login of a wrong shape, and does not repeat it', async (t) => {
    const place = await stage(t)
    for (const credentials of [
      { username: 'a:b', password: 'hunter2-hunter2' },
      { username: 'a\n', password: 'hunter2-hunter2' },
      { username: 'hunter2-hunter2'.repeat(20), password: 'x' },
      { username: 'a', password: 'hunter2-hunter2'.repeat(600) },
      { username: 'a', password: '' },
      { username: 'a', password: 'hunter2-hunter2', token: 'hunter2-hunter2' },
      { username: 'hunter2-hunter2' },
      'hunter2-hunter2',
    ]) {
      // oxlint-disable-next-line no-unsafe-type-assertion, no-await-in-loop -- wrong on purpose
      const reply = await place.launch('acme', 'k', credentials as typeof login)
      assert.equal(codeOf(reply), 'BAD_REQUEST')
      assert.ok(!reply.text.includes('hunter2-hunter2'))
    }
    assert.ok(!place.lines.some((line) => line.includes('hunter2-hunter2')))
  })

  test('the command line reads the login from a file that others write too', async (t) => {
    const place = await stage(t)
    const authOf = ({ username, password }: typeof login): object => ({
      auth: Buffer.from(`${username}:${password}`).toString('base64'),
    })
    const run = async (auths: object): Promise<{ code: number; stderr: string }> => {
      const authfile = path.join(place.agent.directory, 'auth.json')
      writeFileSync(authfile, JSON.stringify({ auths }))
      const socket = path.join(place.agent.directory, 'run', AGENT_SOCKET)
      const args = ['--socket', socket, '-t', 'acme', 'run', '-d', '--authfile', authfile]
      return await new Promise((resolve) => {
        execFile(process.execPath, [cli, ...args, place.image], (error, _stdout, stderr) => {
          resolve({ code: Number(error?.code ?? 0), stderr })
        })
      })
    }
    const repository = place.image.replace(/:1$/u, '')
    assert.match((await run({ [registry.host]: authOf(login) })).stderr, /could not be started/u)
    const specific = { [registry.host]: authOf(wrong), [repository]: authOf(login) }
    assert.match((await run(specific)).stderr, /could not be started/u)
    const refused = await run({ [registry.host]: authOf(wrong) })
    assert.equal(refused.code, 6)
    assert.match(refused.stderr, /refuses manifest \(401\)/u)
    assert.equal((await run({ 'registry.example': authOf(login) })).code, 6)
  })
})
