/** A real registry on loopback: Debian's docker-registry, with its files where the demo can reach them. */
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { start } from './processes.mjs'

export async function startRegistry(program, folder, port) {
  const data = path.join(folder, 'registry')
  const config = path.join(folder, 'registry.yml')
  writeFileSync(
    config,
    `version: 0.1
log: { level: info, formatter: json }
storage: { filesystem: { rootdirectory: ${JSON.stringify(data)} }, delete: { enabled: true } }
http: { addr: 127.0.0.1:${port} }
`,
  )
  const running = await start([program, 'serve', config], (line) => line.includes('listening on'))
  return { host: `127.0.0.1:${port}`, data, end: running.end }
}

/** Changes one byte of a blob in the registry's storage, as somebody with access to it could. */
export function tamper({ data }, digest) {
  const hex = digest.slice(7)
  const blob = path.join(data, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data')
  const bytes = readFileSync(blob)
  const middle = Math.floor(bytes.length / 2)
  bytes[middle] ^= 1
  writeFileSync(blob, bytes)
}
