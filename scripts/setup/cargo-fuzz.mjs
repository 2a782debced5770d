/** cargo-fuzz, built once into the cache; only tests need it. */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { withLock } from './lock.mjs'
import { cache } from './paths.mjs'

const VERSION = '0.13.2'

/** Path of the program; builds it when the cache has none. */
export async function cargoFuzz(log) {
  const home = path.join(cache, `cargo-fuzz-${VERSION}`)
  const program = path.join(home, 'bin/cargo-fuzz')
  if (existsSync(program)) return program
  process.stdout.write('building cargo-fuzz, once for this machine\n')
  return await withLock(
    path.join(cache, 'cargo-fuzz.lock'),
    () => {},
    async () => {
      if (!existsSync(program)) {
        const command = [
          'cargo',
          'install',
          'cargo-fuzz',
          '--locked',
          '--version',
          VERSION,
          '--root',
          home,
        ]
        await log.run(command, { advice: 'check the network, then run the same command again' })
      }
      return program
    },
  )
}
