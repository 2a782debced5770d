/**
 * The rootfs worker: a process of its own, without network, credentials or files, in which the
 * hostile bytes of layers are unpacked (docs/formats.md section 9).
 *
 * fd 3 request, fd 4 answer, fd 5 output, fd 6... blobs of the layers. It answers and ends; an image
 * that is refused is an answer like any other, and only a fault of ours ends it with a status.
 */
import { readFileSync, writeFileSync } from 'node:fs'

import { canonicalJson } from '../../../policy/canonical.ts'
import { buildRootfs } from './build.ts'
import { RootfsFailure } from './failure.ts'
import { parseRequest } from './parse-request.ts'
import { ANSWER_VERSION, type RootfsAnswer } from './request.ts'

const REQUEST_FD = 3
const ANSWER_FD = 4
const OUTPUT_FD = 5
const LAYERS_FD = 6
const MESSAGE_CHARACTERS_MAX = 1000

function refused(error: unknown): RootfsAnswer {
  if (!(error instanceof RootfsFailure)) throw error
  return {
    v: ANSWER_VERSION,
    ok: false,
    code: error.code,
    message: error.message.slice(0, MESSAGE_CHARACTERS_MAX),
  }
}

async function answer(): Promise<RootfsAnswer> {
  try {
    const request = parseRequest(readFileSync(REQUEST_FD))
    const layerFds = request.layers.map((_, index) => LAYERS_FD + index)
    return await buildRootfs(request, OUTPUT_FD, layerFds)
  } catch (error) {
    return refused(error)
  }
}

const result = await answer()
writeFileSync(ANSWER_FD, canonicalJson({ ...result }))
