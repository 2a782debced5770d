/**
 * Builds the demo's images: busybox, and a second layer that changes what the first one brought.
 * An OCI layout (image-spec image-layout.md) written with tar and a few JSON files; skopeo pushes it.
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { must } from './processes.mjs'

const APPLETS = [
  'cat',
  'echo',
  'env',
  'false',
  'grep',
  'hostname',
  'id',
  'ls',
  'mount',
  'ps',
  'sh',
  'sleep',
  'true',
  'uname',
]
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

/** What the pod runs: it says where it is, from inside. */
const HELLO = `#!/bin/sh
echo "hello from $(hostname), user $(id -u), process $$"
echo "kernel $(uname -r)"
cat /etc/motd
`

const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

function file(root, name, text, mode = 0o644) {
  const place = path.join(root, name)
  mkdirSync(path.dirname(place), { recursive: true })
  writeFileSync(place, text)
  chmodSync(place, mode)
}

/** Busybox and the links to it; files that the second layer replaces and removes. */
function firstLayer(root) {
  mkdirSync(path.join(root, 'bin'), { recursive: true })
  copyFileSync('/usr/bin/busybox', path.join(root, 'bin/busybox'))
  chmodSync(path.join(root, 'bin/busybox'), 0o755)
  for (const name of APPLETS) symlinkSync('busybox', path.join(root, 'bin', name))
  file(root, 'etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n')
  file(root, 'etc/group', 'root:x:0:\nweb:x:1000:\n')
  file(root, 'etc/motd', 'the first layer, which nobody should read\n')
  file(root, 'etc/removed', 'the second layer takes this away\n')
  for (const name of ['dev', 'proc', 'sys', 'tmp', 'root']) mkdirSync(path.join(root, name))
}

/** @param words what makes this image another one than the others */
function secondLayer(root, words) {
  file(root, 'bin/hello', HELLO, 0o755)
  file(root, 'etc/motd', `${words}\n`)
  file(root, 'etc/.wh.removed', '')
}

async function layerOf(folder, fill) {
  mkdirSync(folder, { recursive: true })
  fill(folder)
  const tar = `${folder}.tar`
  const fixed = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0']
  await must(['tar', '--create', `--file=${tar}`, ...fixed, `--directory=${folder}`, '.'])
  return readFileSync(tar)
}

/** Writes the image as an OCI layout into `folder`; returns the digest of its manifest and layers. */
export async function buildImage(folder, words) {
  const blobs = path.join(folder, 'blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const store = (bytes, mediaType) => {
    const digest = sha256(bytes)
    writeFileSync(path.join(blobs, digest.slice(7)), bytes)
    return { mediaType, digest, size: bytes.length }
  }
  const tars = [
    await layerOf(path.join(folder, 'first'), firstLayer),
    await layerOf(path.join(folder, 'second'), (root) => secondLayer(root, words)),
  ]
  const layers = tars.map((tar) => store(gzipSync(tar), LAYER))
  const config = store(
    Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        config: { Cmd: ['/bin/hello'], Env: ['PATH=/bin'], WorkingDir: '/' },
        rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
      }),
    ),
    CONFIG,
  )
  const manifest = store(
    Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers })),
    MANIFEST,
  )
  const annotations = { 'org.opencontainers.image.ref.name': 'demo' }
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] }
  writeFileSync(path.join(folder, 'index.json'), JSON.stringify(index))
  writeFileSync(path.join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  return { folder, digest: manifest.digest, layers: layers.map((layer) => layer.digest) }
}

/** Pushes with skopeo, byte for byte. */
export async function push(image, reference) {
  const source = `oci:${image.folder}:demo`
  const exact = ['--preserve-digests', '--dest-tls-verify=false', '--insecure-policy']
  await must(['skopeo', 'copy', ...exact, source, `docker://${reference}`])
}
