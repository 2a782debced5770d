/** What people give on the command line: files by name, numbers. Wrong ones are wrong usage. */
import { readFileSync } from 'node:fs'
import { InvalidArgumentError } from 'commander'

/** The command was used wrongly: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

const STANDARD_INPUT = 0

/** Text of a file that an option names. @throws UsageError, with the option and the reason */
export function readNamed(option: string, file: string): string {
  try {
    return readFileSync(file === '-' ? STANDARD_INPUT : file, 'utf8')
  } catch (cause) {
    const code: unknown = cause instanceof Error ? Reflect.get(cause, 'code') : undefined
    const why = code === 'ENOENT' ? 'there is no such file' : String(code ?? cause)
    throw new UsageError(`${option} ${file} cannot be read: ${why}`, { cause })
  }
}

/** A whole number; the agent knows its bounds. @throws InvalidArgumentError */
export function integer(text: string): number {
  if (/^\d{1,15}$/u.test(text)) return Number(text)
  throw new InvalidArgumentError('It must be a whole number.')
}

/** `none` by itself is nothing at all. */
export function wordsOf(words: readonly string[] | undefined): readonly string[] | undefined {
  if (words === undefined || !words.includes('none')) return words
  if (words.length === 1) return []
  throw new UsageError('none stands alone, without other networks or ports')
}
