/** Small rules of the tree that no linter has: sizes, left-overs, paths of somebody's machine. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { suite, test } from 'node:test'

const root = path.resolve(import.meta.dirname, '..')
const HERE = 'test/tidy.test.ts'

/** Limits in lines; oxlint has those of TypeScript functions and files, clippy that of Rust functions. */
const RUST_LINES_MAX = 500
const SCRIPT_LINES_MAX = 400
const ADDON_LINES_MAX = 300
const DOC_COLUMNS_MAX = 160
const FILE_BYTES_MAX = 256 * 1024

/** Written by programs, so neither short nor tidy. */
const GENERATED =
  /(^|\/)(package-lock\.json|Cargo\.lock|go\.sum)$|^(test\/(golden|vectors)|native\/fuzz\/corpus)\//u

function tracked(): readonly string[] {
  const listed = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' })
  return listed
    .split('\0')
    .filter(
      (name) =>
        name !== '' &&
        statSync(path.join(root, name), { throwIfNoEntry: false })?.isFile() === true,
    )
}

const files = tracked().filter((name) => !GENERATED.test(name))
const read = (name: string): string => readFileSync(path.join(root, name), 'utf8')
const isText = (name: string): boolean => !read(name).includes('\0')
const texts = files.filter(isText)
const linesIn = (text: string): number => text.trimEnd().split('\n').length

/** The file without its inline tests, which come last. */
const withoutTests = (text: string): string =>
  text.split(/^#\[cfg\(test\)\]\nmod \w+ \{/mu)[0] ?? ''

const tooLong = (line: string): boolean =>
  line.length > DOC_COLUMNS_MAX && !/^( {4}|\||\[[^\]]+\]: )/u.test(line)

/** `file:line` of each line that `matches`. */
const linesThat = (
  names: readonly string[],
  matches: (line: string) => boolean,
): readonly string[] =>
  names.flatMap((name) =>
    read(name)
      .split('\n')
      .flatMap((line, index) => (matches(line) ? [`${name}:${index + 1}`] : [])),
  )

suite('tidy', () => {
  test('no file has both sides of a merge', () => {
    assert.deepEqual(
      linesThat(texts, (line) => /^(<{7}|>{7}) /u.test(line)),
      [],
    )
  })

  test('sees the tree', () => {
    for (const name of ['package.json', 'native/Cargo.toml', HERE]) assert.ok(files.includes(name))
  })

  test(`keeps Rust files within ${RUST_LINES_MAX} lines without their tests`, () => {
    const own = files.filter(
      (name) => name.endsWith('.rs') && !/(_tests?\.rs|\/tests\/.*)$/u.test(name),
    )
    assert.deepEqual(
      own.filter((name) => linesIn(withoutTests(read(name))) > RUST_LINES_MAX),
      [],
    )
  })

  test(`keeps scripts within ${SCRIPT_LINES_MAX} lines and the addon within ${ADDON_LINES_MAX}`, () => {
    const scripts = files.filter((name) => name.endsWith('.mjs'))
    assert.deepEqual(
      scripts.filter((name) => linesIn(read(name)) > SCRIPT_LINES_MAX),
      [],
    )
    const addon = files.filter((name) => /^native\/addon\/.*\.(cc|h)$/u.test(name))
    const lines = addon.reduce((sum, name) => sum + linesIn(read(name)), 0)
    assert.ok(lines <= ADDON_LINES_MAX, `the addon has ${lines} lines`)
  })

  test(`keeps prose within ${DOC_COLUMNS_MAX} columns`, () => {
    const docs = texts.filter((name) => name.endsWith('.md'))
    assert.deepEqual(linesThat(docs, tooLong), [])
  })

  test(`keeps files within ${FILE_BYTES_MAX} bytes`, () => {
    assert.deepEqual(
      files.filter((name) => statSync(path.join(root, name)).size > FILE_BYTES_MAX),
      [],
    )
  })

  test('leaves nothing for later', () => {
    const later = /\b(?:TODO|FIXME|XXX|HACK)\b/u
    assert.deepEqual(
      linesThat(
        texts.filter((name) => name !== HERE),
        (line) => later.test(line),
      ),
      [],
    )
  })

  test('names no path of the machine it was written on', () => {
    // Where docs/operating.md installs it a checkout may well lie.
    const places = [root, `${homedir()}/.`].filter((place) => place !== '/opt/casemate')
    const own = (line: string): boolean => places.some((place) => line.includes(place))
    assert.deepEqual(
      linesThat(
        texts.filter((name) => name !== HERE),
        own,
      ),
      [],
    )
  })

  test('leaves no test out without saying why', () => {
    const silent =
      /\b(?:test|suite|it|describe)\.(?:only|skip|todo)\(|\bonly: true|\bskip: true|#\[ignore\]/u
    const tests = files.filter((name) => /\.(ts|rs)$/u.test(name) && name !== HERE)
    assert.deepEqual(
      linesThat(tests, (line) => silent.test(line)),
      [],
    )
  })

  test('ends every text with one newline and no blank at the end of a line', () => {
    const own = texts.filter(
      (name) => !name.endsWith('.patch') && name !== 'LICENSE' && read(name) !== '',
    )
    assert.deepEqual(
      own.filter((name) => !/[^\n]\n$/u.test(read(name))),
      [],
    )
    assert.deepEqual(
      linesThat(
        own.filter((name) => !name.endsWith('.md')),
        (line) => /[ \t]$/u.test(line),
      ),
      [],
    )
  })
})
