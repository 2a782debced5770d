/**
 * The main job, once, as a provider and its tenant would do it: with the command line and the API,
 * a real registry, a real image, a real virtual machine.
 *
 *   npm run demo [-- --keep] [-- --state-dir DIR]     shows each step
 *   npm run -s demo -- --json                         one JSON object on standard output
 */
import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { ask, asOperator, asTenant, casemate, checkout, startHost } from './demo/host.mjs'
import { buildImage, push } from './demo/image.mjs'
import { freePort, must, run } from './demo/processes.mjs'
import { startRegistry, tamper } from './demo/registry.mjs'
import { printer } from './demo/show.mjs'

const TENANT = 'acme'

/** What an image must be signed with: the one document of a tenant's own. */
const ruleFor = (registry, pem) => ({
  schemaVersion: 1,
  default: 'deny',
  rules: [
    {
      name: 'demo',
      match: [`${registry}/demo/**`],
      require: {
        all: [
          {
            anyOf: [
              {
                type: 'cosign-key',
                keys: [{ id: 'release', pem }],
                transparency: 'none',
                identityMatch: 'exactRepository',
              },
            ],
            threshold: 1,
          },
        ],
      },
    },
  ],
})

/** A key pair as `cosign generate-key-pair` makes it, not encrypted. */
function keyPair(folder) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const key = path.join(folder, 'cosign.key')
  writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
  return { key, pem: publicKey.export({ type: 'spki', format: 'pem' }) }
}

function expect(condition, what, found) {
  if (!condition) throw new Error(`${what}: ${JSON.stringify(found, null, 2)}`)
}

/** Everything until a signed image is in the registry and the tenant may run it. */
async function prepare(world, show) {
  const { folder, registry, host } = world
  const keys = keyPair(folder)
  const names = { good: 'hello', unsigned: 'unsigned', tampered: 'tampered' }
  const references = Object.fromEntries(
    Object.entries(names).map(([what, name]) => [what, `${registry.host}/demo/${name}:1`]),
  )
  const images = await show.step(
    'build',
    'build three images: busybox and a second layer',
    async () => {
      const built = {}
      for (const [what, name] of Object.entries(names)) {
        const words = `the second layer of ${name}, over the first`
        built[what] = await buildImage(path.join(folder, name), words)
      }
      return built
    },
  )
  await show.step('push', 'push them with skopeo', async () => {
    for (const [what, image] of Object.entries(images)) await push(image, references[what])
  })
  const sign = (what) => {
    const key = ['--insecure-registry', registry.host, '--key', keys.key]
    return must(casemate('-o', 'json', 'image', 'sign', ...key, references[what]))
  }
  const signer = await show.step(
    'sign',
    'sign two of them: casemate image sign --key',
    async () => {
      await sign('tampered')
      return JSON.parse(await sign('good')).keyId
    },
  )
  tamper(registry, images.tampered.layers[1])
  const tokenFile = path.join(folder, 'token')
  await show.step(
    'onboard',
    `onboard tenant ${TENANT}: untrusted, images signed by that key`,
    async () => {
      const rule = path.join(folder, 'rule.json')
      writeFileSync(rule, JSON.stringify(ruleFor(registry.host, keys.pem)))
      const operator = asOperator(host)
      await must(casemate(...operator, 'tenant', 'create', TENANT, '--image-rule', rule))
      const token = await must(
        casemate(...operator, '-t', TENANT, 'token', 'issue', '--name', 'demo'),
      )
      writeFileSync(tokenFile, token, { mode: 0o600 })
    },
  )
  return { references, signer, access: asTenant(host, tokenFile) }
}

/** The main job: run it, and prove that it ran as the record says. */
async function mainJob(world, prepared, show) {
  const { references, access } = prepared
  const ran = await show.step(
    'run',
    'casemate run: pull, verify, decide, record, boot, hello',
    () => run(casemate(...access, 'run', references.good)),
  )
  expect(ran.status === 0, 'the pod should have ended with 0', ran)
  const listed = await ask(access, 'ps', '-a')
  const [pod] = listed.value.pods
  const { record, isolation, facts } = pod
  const receipt = await show.step('receipt', 'verify the receipt of its record offline', () =>
    ask(access, 'audit', 'receipt', pod.id, '--verify', world.host.vkey),
  )
  expect(receipt.value?.verified === true, 'the receipt should verify', receipt)
  const { value: tenant } = await ask(access, 'tenant', 'show', TENANT)
  return {
    tenant: TENANT,
    trust: tenant.trust,
    image: references.good,
    digest: pod.image.digest,
    signer: prepared.signer,
    isolation,
    policies: facts.policies,
    kernel: /^kernel (.+)$/mu.exec(ran.stdout)?.[1] ?? null,
    kvm: facts.kvm,
    output: ran.stdout,
    exit_code: ran.status,
    record,
    receipt: 'verified',
  }
}

/** Three launches that must not happen, each for its own reason. */
async function refusals({ references, access }, show) {
  const wanted = [
    { what: 'unsigned', code: 'IMAGE_UNSIGNED', asked: [references.unsigned] },
    { what: 'tampered', code: 'IMAGE_DIGEST_MISMATCH', asked: [references.tampered] },
    {
      what: 'container',
      code: 'ISOLATION_NOT_PERMITTED',
      asked: ['--isolation', 'container', references.good],
    },
  ]
  const refused = []
  for (const { what, code, asked } of wanted) {
    const answer = await show.step(`refuse_${what}`, `refused: ${what}`, () =>
      ask(access, 'run', '-d', ...asked),
    )
    expect(answer.value?.code === code, `${what} should be refused with ${code}`, answer)
    show.line(`      ${answer.value.code}: ${answer.value.detail}`)
    refused.push({ what, code: answer.value.code })
  }
  return refused
}

function nextCommands({ host, folder }, image) {
  const cli = 'npm run -s casemate --'
  const operator = `--socket ${host.socket}`
  const tenant = `--url ${host.url} --ca ${host.ca} --token-file ${path.join(folder, 'token')}`
  return [
    `${cli} ${tenant} ps`,
    `${cli} ${tenant} run ${image} -- /bin/sh -c 'cat /proc/cpuinfo'`,
    `${cli} ${operator} audit show`,
    `${cli} audit verify ${host.log} --vkey ${host.vkey}`,
    `${cli} ${operator} doctor`,
  ]
}

async function demo(options, show, ending) {
  const began = performance.now()
  const folder = path.resolve(
    options['state-dir'] ?? mkdtempSync(path.join(tmpdir(), 'casemate-demo-')),
  )
  mkdirSync(folder, { recursive: true })
  // Signer, agent and worker are other users: they pass through this folder to their own.
  chmodSync(folder, 0o711)
  if (options['state-dir'] === undefined && !options.keep) {
    ending.push(() => rmSync(folder, { recursive: true, force: true }))
  }
  const artifacts = JSON.parse(
    readFileSync(path.join(checkout, '.tools/artifacts/artifacts.json'), 'utf8'),
  )
  const [registryPort, httpsPort] = [await freePort(), await freePort()]
  const registry = await show.step('registry', 'start docker-registry on loopback', () =>
    startRegistry(artifacts.registry.path, folder, registryPort),
  )
  ending.push(registry.end)
  const host = await show.step('up', 'start signer, spawn and agent, each under its own user', () =>
    startHost({
      stateDir: path.join(folder, 'state'),
      runDir: path.join(folder, 'run'),
      httpsPort,
      registry: registry.host,
    }),
  )
  ending.push(host.end)
  const world = { folder, registry, host }
  const prepared = await prepare(world, show)
  const result = await mainJob(world, prepared, show)
  const refused = await refusals(prepared, show)
  show.timings.total = Math.round(performance.now() - began)
  return { world, result: { ...result, refusals: refused, timings_ms: show.timings } }
}

function summary({ line }, found) {
  line('')
  line(`  tenant     ${found.tenant} (${found.trust})`)
  line(`  image      ${found.image}`)
  line(`             ${found.digest}, signed by ${found.signer}`)
  line(
    `  isolation  ${found.isolation} on ${found.kvm} KVM, permitted by ${found.policies.join(', ')}`,
  )
  line(`  record     ${found.record}, receipt ${found.receipt}`)
  line(`  output     ${found.output.trim().split('\n').join('\n             ')}`)
}

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    'state-dir': { type: 'string' },
  },
})
const show = printer(options.json)
const ending = []
try {
  show.line('casemate: the main job, end to end\n')
  const { world, result } = await demo(options, show, ending)
  if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`)
  else summary(show, result)
  if (options.keep) {
    show.line('\neverything is left running; try:')
    for (const command of nextCommands(world, result.image)) show.line(`  ${command}`)
    show.line('Ctrl-C ends it')
    await new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve))
  }
} catch (error) {
  process.stderr.write(
    `\nthe demo failed: ${error instanceof Error ? error.message : String(error)}\n`,
  )
  process.exitCode = 1
} finally {
  for (const end of ending.toReversed()) await end()
}
