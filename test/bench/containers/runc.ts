/** runc without anything around it. */
import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { freshName, peerOf, type Words } from './command.ts'
import { imageTar, type Peer } from './peer.ts'

const run = promisify(execFile)

/** A bundle as `runc spec` makes it, with `args`. @returns its folder */
function bundle(folder: string, args: readonly string[]): string {
  const place = path.join(folder, `bundle-${freshName()}`)
  mkdirSync(place)
  execFileSync('runc', ['spec', '--bundle', place])
  const config = path.join(place, 'config.json')
  const spec = JSON.parse(readFileSync(config, 'utf8')) as {
    process: { args: readonly string[]; terminal: boolean; env: readonly string[] }
    root: { path: string }
  }
  spec.process = { ...spec.process, args, terminal: false, env: ['PATH=/bin'] }
  spec.root.path = path.join(folder, 'root')
  writeFileSync(config, JSON.stringify(spec))
  return place
}

/** Bundles are made once; output goes to us, or to a file. @param folder is its own */
export function openRunc(folder: string): Peer {
  const root = path.join(folder, 'root')
  mkdirSync(root)
  execFileSync('tar', ['-x', '-C', root], { input: imageTar() })
  const runc = ['runc', '--root', path.join(folder, 'state')]
  const bundles = new Map<string, string>()
  const bundleOf = (args: readonly string[]): string => {
    const key = args.join('\0')
    const found = bundles.get(key) ?? bundle(folder, args)
    bundles.set(key, found)
    return found
  }
  const words: Words = {
    name: 'runc',
    run: (container, args) => [...runc, 'run', '--bundle', bundleOf(args), container],
    exec: (container) => [...runc, 'exec', container],
    stop: (container) => [...runc, 'kill', container, 'TERM'],
  }
  const log = path.join(folder, 'log')
  const flood = async (args: readonly string[]): Promise<void> => {
    const command = words.run(freshName(), args)
    await run('/bin/sh', ['-c', 'log=$1; shift; exec "$@" > "$log"', 'sh', log, ...command])
    rmSync(log)
  }
  return peerOf(words, flood)
}
