/** Casemate's own version, as package.json says it. */
import { readFileSync } from 'node:fs'

function read(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  const found: unknown = JSON.parse(text)
  const version: unknown =
    typeof found === 'object' && found !== null ? Reflect.get(found, 'version') : undefined
  if (typeof version !== 'string') throw new Error('package.json names no version')
  return version
}

export const VERSION: string = read()
