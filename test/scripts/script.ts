/** Set-up's modules are plain JavaScript without types; a test says what it expects of one. */
import path from 'node:path'
import { pathToFileURL } from 'node:url'

export const scriptsFolder: string = path.resolve(import.meta.dirname, '../../scripts')

/** Imports scripts/<name>. */
export async function script<Module>(name: string): Promise<Module> {
  const module: unknown = await import(pathToFileURL(path.join(scriptsFolder, name)).href)
  return module as Module
}
