/**
 * Builds one image: layers in, EROFS and its Merkle tree out.
 *
 * Twice over the layers. The first pass checks every byte and makes the tree; the second writes the
 * bodies that are still in it to where the layout wants them. Unpacking again is cheaper than
 * keeping, and nothing is written before everything was found good.
 */
/* oxlint-disable no-await-in-loop -- a stream is read in order */
import { ftruncateSync } from 'node:fs'

import { BLOCK } from './erofs-format.ts'
import { type Inode, type Layout, layOut } from './erofs-layout.ts'
import { writeAll, writeData, writeMetadata } from './erofs-write.ts'
import { RootfsFailure } from './failure.ts'
import { openLayer } from './layer-stream.ts'
import {
  ANSWER_VERSION,
  fileSystemUuid,
  type RootfsBuilt,
  type RootfsRequest,
  rootfsKey,
  veritySalt,
} from './request.ts'
import { readTar, type TakeBody, type TarEntry } from './tar.ts'
import { Tree } from './tree.ts'
import { treeBytes, verityTree } from './verity.ts'

/** What is called for each entry of a layer: its number in the archive comes with it. */
type Visit = (entry: TarEntry, layer: number, index: number) => TakeBody | null

async function readLayers(
  request: RootfsRequest,
  layerFds: readonly number[],
  visit: Visit,
): Promise<void> {
  const budget = { unpackedBytes: request.limits.unpacked_bytes }
  for (const [number, layer] of request.layers.entries()) {
    const fd = layerFds[number]
    if (fd === undefined) throw new RangeError(`no descriptor for layer ${number}`)
    let index = 0
    await readTar(openLayer(fd, layer, request.limits, budget), (entry) => {
      index += 1
      return visit(entry, number, index)
    })
  }
}

/** The inode whose body is at an entry of a layer, for those that the merged tree still has. */
function indexBodies(layout: Layout, layers: number): Map<number, Inode>[] {
  const bodies = Array.from({ length: layers }, () => new Map<number, Inode>())
  for (const [file, inode] of layout.byFile) {
    if (file.size > 0) bodies[file.layer]?.set(file.entry, inode)
  }
  return bodies
}

function bodyWriter(outputFd: number, inode: Inode): TakeBody {
  let offset = 0
  return (chunk) => {
    writeData(outputFd, inode, chunk, offset)
    offset += chunk.length
  }
}

/**
 * @param outputFd an empty file, open for reading and writing
 * @param layerFds one for each layer of the request, in its order
 * @throws RootfsFailure
 */
export async function buildRootfs(
  request: RootfsRequest,
  outputFd: number,
  layerFds: readonly number[],
): Promise<RootfsBuilt> {
  const tree = new Tree(request.limits)
  await readLayers(request, layerFds, (entry, layer, index) => {
    tree.apply(entry, layer, index)
    return null
  })
  const layout = layOut(tree.root)
  if (layout.blocks * BLOCK + treeBytes(layout.blocks) > request.limits.output_bytes) {
    throw new RootfsFailure('ROOTFS_OUTPUT_TOO_LARGE', 'the root image is larger than its room')
  }
  const key = rootfsKey(request.layers, request.limits)
  ftruncateSync(outputFd, layout.blocks * BLOCK)
  writeMetadata(outputFd, layout, fileSystemUuid(key))
  const bodies = indexBodies(layout, request.layers.length)
  await readLayers(request, layerFds, (_entry, layer, index) => {
    const inode = bodies[layer]?.get(index)
    return inode === undefined ? null : bodyWriter(outputFd, inode)
  })
  const salt = veritySalt(key)
  const { root, tree: hashes } = verityTree(outputFd, layout.blocks, salt)
  writeAll(outputFd, hashes, layout.blocks * BLOCK)
  return {
    v: ANSWER_VERSION,
    ok: true,
    data_blocks: layout.blocks,
    root: root.toString('hex'),
    salt: salt.toString('hex'),
    size: layout.blocks * BLOCK + hashes.length,
    layer_digests: request.layers.map((layer) => layer.digest),
    diff_ids: request.layers.map((layer) => layer.diff_id),
    entries: layout.inodes.length,
  }
}
