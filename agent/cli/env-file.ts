/**
 * Files of `--env-file`, in Docker's form: a line is `KEY=value`, value as it stands, quotes included; `KEY` alone is
 * taken from the environment of who runs the command, if it is there; lines that begin with # are comments.
 */
import { readNamed, UsageError } from './arguments.ts'

function entryOf(line: string, where: string): string | null {
  const text = line.trimStart()
  if (text === '' || text.startsWith('#')) return null
  const [key = '', ...value] = text.split('=')
  if (key === '' || /\s/u.test(key)) {
    throw new UsageError(`${where}: a name is not empty and has no space in it`)
  }
  if (value.length > 0) return `${key}=${value.join('=')}`
  const own = process.env[key]
  return own === undefined ? null : `${key}=${own}`
}

const keyOf = (entry: string): string => entry.split('=')[0] ?? ''

/**
 * The environment of a launch: files in their order, then single entries, each over what came before.
 * @throws UsageError
 */
export function environmentOf(
  files: readonly string[],
  entries: readonly string[],
): readonly string[] {
  const merged = new Map<string, string>()
  for (const file of files) {
    const lines = readNamed('--env-file', file)
      .replace(/^\uFEFF/u, '')
      .split(/\r?\n/u)
    for (const [index, line] of lines.entries()) {
      const entry = entryOf(line, `--env-file ${file}, line ${index + 1}`)
      if (entry !== null) merged.set(keyOf(entry), entry)
    }
  }
  for (const entry of entries) merged.set(keyOf(entry), entry)
  return [...merged.values()]
}
