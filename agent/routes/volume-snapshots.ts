/** /v1/tenants/{tenant}/volumes/{volume}/snapshots: copies of volumes, to go back to and to take elsewhere. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { createReadStream } from 'node:fs'
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback } from 'fastify'
import { parseVolumeName, type TenantId } from '../../policy/index.ts'
import { ApiError } from '../errors.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import { changeVolume, exportVolume } from '../tasks/volumes.ts'
import { inTime } from './pod-control.ts'
import { closed, PROBLEMS, VOLUME } from './schemas.ts'
import { goneOf } from './shared.ts'
import {
  changedVolume,
  VOLUME_NAME,
  VOLUME_PARAMS,
  VOLUME_TAGS,
  volumeCallOf,
  volumeNamed,
} from './volumes.ts'

const tenant = Type.String({ maxLength: 64 })
const snapshotParams = Type.Object(
  { tenant, volume: Type.String({ maxLength: 64 }), snapshot: Type.String({ maxLength: 64 }) },
  closed,
)
const nothing = Type.Object({}, closed)
/** Of one tenant at a time: each reads a whole disk. */
const EXPORTS_MAX = 2
const CHUNK_BYTES = 1 << 20

const snapshots: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/volumes/:volume/snapshots',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'Copy a volume that no pod has',
          params: VOLUME_PARAMS,
          body: Type.Object({ name: VOLUME_NAME }, closed),
          response: { 201: VOLUME, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const snapshot = parseVolumeName(request.body.name)
        const volume = volumeNamed(request.params.volume)
        const wish = { volume, operation: 'snapshot', snapshot } as const
        const call = await volumeCallOf(ports, request, request.params.tenant, wish)
        return await reply.code(201).send(await inTime(reply, changedVolume(ports, call)))
      },
    )
    app.delete(
      '/v1/tenants/:tenant/volumes/:volume/snapshots/:snapshot',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'Destroy a snapshot',
          params: snapshotParams,
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const { tenant: owner, ...names } = request.params
        const snapshot = volumeNamed(names.snapshot)
        const wish = { volume: volumeNamed(names.volume), operation: 'remove', snapshot } as const
        await inTime(reply, changeVolume(ports, await volumeCallOf(ports, request, owner, wish)))
        return await reply.code(204).send(null)
      },
    )
    app.post(
      '/v1/tenants/:tenant/volumes/:volume/restore',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'Have a snapshot in place of what a volume holds; no pod may have it',
          params: VOLUME_PARAMS,
          body: Type.Object({ snapshot: VOLUME_NAME }, closed),
          response: { 200: VOLUME, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const snapshot = parseVolumeName(request.body.snapshot)
        const volume = volumeNamed(request.params.volume)
        const wish = { volume, operation: 'restore', snapshot } as const
        const call = await volumeCallOf(ports, request, request.params.tenant, wish)
        return await inTime(reply, changedVolume(ports, call))
      },
    )
    done()
  }

const exports: (ports: LaunchPorts) => FastifyPluginCallbackTypebox = (ports) => {
  const open = new Map<TenantId, number>()
  const begin = (owner: TenantId): (() => void) => {
    const count = open.get(owner) ?? 0
    if (count >= EXPORTS_MAX) {
      const sentence = `${EXPORTS_MAX} snapshots of the tenant are being exported. Try again when one is done.`
      throw new ApiError('TOO_MANY_REQUESTS', sentence)
    }
    open.set(owner, count + 1)
    return () => {
      open.set(owner, (open.get(owner) ?? 1) - 1)
    }
  }
  return (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/volumes/:volume/snapshots/:snapshot/export',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'The bytes of a snapshot: a disk with an ext4 file system',
          params: snapshotParams,
          body: nothing,
          response: {
            200: {
              description: 'As many bytes as the snapshot has',
              content: {
                'application/octet-stream': { schema: Type.String({ format: 'binary' }) },
              },
            },
            ...PROBLEMS,
          },
        },
      },
      async (request, reply) => {
        const { tenant: owner, ...names } = request.params
        const snapshot = volumeNamed(names.snapshot)
        const wish = { volume: volumeNamed(names.volume), operation: 'export', snapshot } as const
        const call = await volumeCallOf(ports, request, owner, wish)
        const release = begin(call.scope.tenant)
        goneOf(reply.raw).addEventListener('abort', release, { once: true })
        const { fd, sizeBytes } = await inTime(reply, exportVolume(ports, call))
        const bytes = createReadStream('', {
          fd,
          start: 0,
          end: sizeBytes - 1,
          highWaterMark: CHUNK_BYTES,
        })
        void reply.header('content-length', sizeBytes)
        return await reply.type('application/octet-stream').send(bytes)
      },
    )
    done()
  }
}

export const snapshotRoutes = (ports: LaunchPorts): readonly FastifyPluginCallback[] => [
  snapshots(ports),
  exports(ports),
]
