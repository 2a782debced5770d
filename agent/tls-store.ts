/** Keeps the HTTPS key pair: made at the first start, and again a month before it expires. */
import { X509Certificate } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { makeTlsPair, type TlsPair } from './tls.ts'

const RENEW_MS = 30 * 86_400_000

async function load(directory: string): Promise<TlsPair | null> {
  try {
    const [key, certificate] = await Promise.all([
      readFile(path.join(directory, 'key.pem'), 'utf8'),
      readFile(path.join(directory, 'certificate.pem'), 'utf8'),
    ])
    return { key, certificate }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
    throw error
  }
}

const fresh = ({ certificate }: TlsPair, now: Date): boolean =>
  new X509Certificate(certificate).validToDate.getTime() - now.getTime() > RENEW_MS

async function store(directory: string, name: string, text: string, mode: number): Promise<void> {
  const temporary = path.join(directory, `${name}.new`)
  await writeFile(temporary, text, { mode, flush: true })
  await rename(temporary, path.join(directory, name))
}

/** @param directory private to the agent; made when needed */
export async function loadTlsPair(directory: string, now: Date): Promise<TlsPair> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const known = await load(directory)
  if (known !== null && fresh(known, now)) return known
  const pair = makeTlsPair(now)
  // The key first: a certificate without its key would be taken for a pair at the next start.
  await store(directory, 'key.pem', pair.key, 0o600)
  await store(directory, 'certificate.pem', pair.certificate, 0o644)
  return pair
}

/** Puts the certificate where clients on this host find it. */
export async function publishCertificate(runDir: string, pair: TlsPair): Promise<void> {
  await store(runDir, 'certificate.pem', pair.certificate, 0o644)
}
