/** The quality gates: what `npm run check` runs, and `npm test` before the tests. */
import { inRoot, node24 } from '../setup/paths.mjs'

const rust = inRoot('native')
const bin = (name) => inRoot('node_modules/.bin', name)

/** Title, command, folder. */
export const gates = [
  ['types (tsc)', [node24, bin('tsc'), '--noEmit', '-p', '.'], inRoot()],
  [
    'format and import order (biome)',
    [bin('biome'), 'check', '--error-on-warnings', '.'],
    inRoot(),
  ],
  ['lint (oxlint)', [bin('oxlint'), '--type-aware', '--deny-warnings'], inRoot()],
  ['Rust format (rustfmt)', ['cargo', 'fmt', '--all', '--check'], rust],
  [
    'Rust lint (clippy)',
    ['cargo', 'clippy', '--workspace', '--all-targets', '--locked', '--', '-D', 'warnings'],
    rust,
  ],
]
