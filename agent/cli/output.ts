/** What the CLI prints. Data goes to standard output, everything else to standard error. */
import { stripVTControlCharacters, styleText } from 'node:util'

/** Everything that comes from outside is printed through this: terminals obey escape sequences. */
export const plain = (text: string): string =>
  stripVTControlCharacters(text).replaceAll(/(?!\n|\t)\p{Cc}/gu, '?')

export const say = (line: string): void => {
  process.stderr.write(`${line}\n`)
}

export const printJson = (value: unknown): void => {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** Columns as wide as their widest cell. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const cells = [head, ...rows.map((row) => row.map(plain))]
  const widths = head.map((_, column) =>
    Math.max(...cells.map((row) => (row[column] ?? '').length)),
  )
  const lines = cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  const [first = '', ...rest] = lines
  const title = styleText('bold', first, { stream: process.stdout })
  process.stdout.write(`${[title, ...rest].join('\n')}\n`)
}

/** `name: value` lines, nested members indented. */
export function printDetails(value: unknown, indent = ''): void {
  if (typeof value !== 'object' || value === null) return
  for (const [name, member] of Object.entries(value)) {
    const nested = typeof member === 'object' && member !== null && !Array.isArray(member)
    const shown = nested ? '' : plain(typeof member === 'string' ? member : JSON.stringify(member))
    process.stdout.write(`${`${indent}${name}: ${shown}`.trimEnd()}\n`)
    if (nested) printDetails(member, `${indent}  `)
  }
}

/** Members of a JSON object, for printing: missing ones are empty. */
export function field(value: unknown, ...path: readonly string[]): string {
  let found: unknown = value
  for (const name of path) {
    found = typeof found === 'object' && found !== null ? Reflect.get(found, name) : undefined
  }
  if (found === undefined || found === null) return ''
  return typeof found === 'string' ? found : JSON.stringify(found)
}

export const items = (value: unknown, name: string): readonly unknown[] => {
  const found: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, name) : []
  return Array.isArray(found) ? found : []
}
