/**
 * Who may import whom. The tables are the architecture; changing one is a design decision, so they
 * stand here alone (ARCHITECTURE.md says why; docs/decisions has a record per outside package).
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import path from 'node:path'
import { suite, test } from 'node:test'
import { codeOfRust, specifiersOf } from './source-text.ts'

const root = path.resolve(import.meta.dirname, '..')

const inside: Readonly<Record<string, readonly string[]>> = {
  policy: [],
  tenants: ['policy'],
  audit: ['policy'],
  native: ['policy'],
  agent: ['policy', 'tenants', 'audit', 'native'],
}

/** Packages and parts of Node a folder may use. `policy` has no I/O: nothing there can open or connect. */
const outside: Readonly<Record<string, RegExp>> = {
  policy: /^(node:(buffer|crypto|net|util)|@cedar-policy\/cedar-wasm\/nodejs)$/u,
  tenants: /^(node:(?!child_process|http|https|net|tls).+|jose|kysely|pg)$/u,
  audit: /^(node:(?!child_process|http|https|tls).+|kysely)$/u,
  native: /^(node:.+|koffi)$/u,
  agent:
    /^(node:(?!child_process|cluster).+|fastify|@fastify\/.+|typebox(\/.+)?|jose|pino|undici|ws|commander|prom-client|openpgp|@sigstore\/(bundle|protobuf-specs|verify))$/u,
}

/** Cargo packages of this workspace -> those they may depend on. What checks a ticket knows no device. */
const crates: Readonly<Record<string, readonly string[]>> = {
  wire: [],
  ticket: [],
  devices: [],
  filter: [],
  container: ['wire', 'ticket', 'devices', 'filter', 'vmm'],
  'guest-init': ['wire', 'ticket'],
  spawn: ['wire', 'ticket', 'filter'],
  vmm: ['wire', 'ticket', 'devices', 'filter'],
}

/** Where the compiler takes our word in what casemate-vmm is linked from: `unsafe` in the code, whatever follows. */
const VMM_UNSAFE_MAX = 40
const IN_VMM = ['vmm', ...(crates['vmm'] ?? [])]

const GENERATED = /(^|\/)(target|node_modules|build|corpus|artifacts)\//u

function filesIn(folder: string, ending: string): readonly string[] {
  const all = readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
  return all.filter((name) => name.endsWith(ending) && !GENERATED.test(name)).toSorted()
}

const read = (name: string): string => readFileSync(path.join(root, name), 'utf8')

const inStore = (file: string): boolean => /(^|\/)store\//u.test(file)
const says = (file: string): boolean => /\bunsafe\b/u.test(codeOfRust(read(file)))

/** What is wrong with one import, or null. */
function complaint(folder: string, file: string, specifier: string): string | null {
  if (!specifier.startsWith('.')) {
    if (!specifier.startsWith('node:') && builtinModules.includes(specifier))
      return `${specifier} is imported without node:`
    const allowed = outside[folder]?.test(specifier) === true
    return allowed ? null : `${folder} may not use ${specifier}`
  }
  const target = path.relative(root, path.resolve(path.dirname(path.join(root, file)), specifier))
  const [top = ''] = target.split(path.sep)
  const allowed = top === folder || inside[folder]?.includes(top) === true
  return allowed ? null : `${folder} may not import ${top} (${specifier})`
}

suite('architecture: imports', () => {
  for (const folder of Object.keys(inside)) {
    const files = filesIn(folder, '.ts')
    test(`${folder} holds files, so that its rules are about something`, () => {
      assert.notEqual(files.length, 0)
    })
    test(`${folder} imports only what it may`, () => {
      const wrong = files.flatMap((name) => {
        const file = path.join(folder, name)
        return specifiersOf(read(file)).flatMap((specifier) => {
          const said = complaint(folder, file, specifier)
          return said === null ? [] : [`${file}: ${said}`]
        })
      })
      assert.deepEqual(wrong, [])
    })
  }

  test('finds what it must refuse', () => {
    const file = 'policy/x.ts'
    assert.match(complaint('policy', file, '../agent/x.ts') ?? '', /policy may not import agent/u)
    assert.match(complaint('policy', file, 'node:fs') ?? '', /may not use node:fs/u)
    assert.match(complaint('agent', 'agent/x.ts', 'node:child_process') ?? '', /child_process/u)
    assert.match(complaint('tenants', 'tenants/x.ts', 'fastify') ?? '', /may not use fastify/u)
    assert.match(complaint('native', 'native/x.ts', 'fs') ?? '', /without node:/u)
    assert.match(complaint('native', 'native/x.ts', '../test/x.ts') ?? '', /may not import test/u)
    assert.equal(complaint('agent', 'agent/tasks/x.ts', '../../policy/decide.ts'), null)
  })

  test('scripts use the programs of the checkout, not its modules', () => {
    const wrong = filesIn('scripts', '.mjs').flatMap((name) =>
      specifiersOf(read(path.join('scripts', name)))
        .filter((specifier) => {
          const target = path.resolve(root, 'scripts', path.dirname(name), specifier)
          const within = target.startsWith(path.join(root, 'scripts') + path.sep)
          return specifier.startsWith('.') ? !within : !specifier.startsWith('node:')
        })
        .map((specifier) => `scripts/${name}: ${specifier}`),
    )
    assert.deepEqual(wrong, [])
  })
})

suite('architecture: one place for each thing', () => {
  const typescript = Object.keys(inside).flatMap((folder) =>
    filesIn(folder, '.ts').map((name) => path.join(folder, name)),
  )
  const sql =
    /\b(?:SELECT\s[^'"]*\sFROM\s|INSERT\s+(?:OR\s+\w+\s+)?INTO\s|DELETE\s+FROM\s|UPDATE\s+\w+\s+SET\s|CREATE\s+(?:TABLE|INDEX|UNIQUE)\s|PRAGMA\s+\w)/u

  test('has SQL and database drivers only in store folders', () => {
    const wrong = typescript.filter((file) => {
      const text = read(file)
      const drivers = specifiersOf(text).some((name) => /^(node:sqlite|kysely|pg)$/u.test(name))
      return !inStore(file) && (drivers || sql.test(text))
    })
    assert.deepEqual(wrong, [])
    assert.ok(sql.test('db.exec("SELECT a FROM b WHERE c")') && sql.test('PRAGMA journal_mode'))
  })
})

suite('architecture: Rust', () => {
  const rust = filesIn('native', '.rs').map((name) => path.join('native', name))

  test('has `unsafe` only in files named *_unsafe.rs, and there are some', () => {
    assert.deepEqual(
      rust.filter((file) => !file.endsWith('_unsafe.rs') && says(file)),
      [],
    )
    assert.ok(rust.some((file) => file.endsWith('_unsafe.rs') && says(file)))
  })

  test('has no file named *_unsafe.rs that is safe', () => {
    assert.deepEqual(
      rust.filter((file) => file.endsWith('_unsafe.rs') && !says(file)),
      [],
    )
  })

  test(`gives the VMM at most ${VMM_UNSAFE_MAX} places with \`unsafe\`, each with its reason`, () => {
    const files = IN_VMM.flatMap((name) =>
      rust.filter((file) => file.startsWith(`native/${name}/src/`)),
    )
    const places = files.map((file) => {
      const found = codeOfRust(read(file)).match(/\bunsafe\b/gu)?.length ?? 0
      const reasons = read(file).match(/^\s*\/\/ SAFETY: \S/gmu)?.length ?? 0
      assert.equal(reasons, found, `${file}: SAFETY comments, and places`)
      return found
    })
    const all = places.reduce((sum, count) => sum + count, 0)
    assert.ok(all > 0 && all <= VMM_UNSAFE_MAX, `${all} places`)
  })

  for (const [name, friends] of Object.entries(crates)) {
    test(`crate ${name} depends on ${friends.join(', ') || 'no other crate of ours'} at most`, () => {
      const manifest = read(`native/${name}/Cargo.toml`)
      const [normal = ''] = manifest.split(/^\[dev-dependencies\]/mu)
      const ours = [...normal.matchAll(/^casemate-([\w-]+)/gmu)].map((found) => found[1] ?? '')
      assert.deepEqual(
        ours.filter((crate) => !friends.includes(crate)),
        [],
      )
    })
  }

  test('knows every crate of the workspace', () => {
    const members = /members = \[([^\]]*)\]/u.exec(read('native/Cargo.toml'))?.[1] ?? ''
    const names = [...members.matchAll(/"([^"]+)"/gu)].map((found) => found[1] ?? '')
    assert.deepEqual(names.toSorted(), Object.keys(crates).toSorted())
    for (const name of names) assert.ok(existsSync(path.join(root, 'native', name, 'Cargo.toml')))
  })
})
