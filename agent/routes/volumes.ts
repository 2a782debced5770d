/** /v1/tenants/{tenant}/volumes: named volumes, which outlive their pods. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import {
  type FastifyPluginCallbackTypebox,
  type TObject,
  type TString,
  Type,
} from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback, FastifyRequest } from 'fastify'
import { parseVolumeBytes, parseVolumeName, type VolumeName } from '../../policy/index.ts'
import { notFound } from '../errors.ts'
import { callerOf } from '../identity.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import { changeVolume, findVolume, listVolumes, type VolumeCall } from '../tasks/volumes.ts'
import { inTime } from './pod-control.ts'
import { closed, PROBLEMS, VOLUME, VOLUMES } from './schemas.ts'
import { originOf, scopeOf } from './shared.ts'
import { type VolumeView, volumeView } from './views.ts'

export const VOLUME_TAGS: string[] = ['volumes']
export const VOLUME_NAME: TString = Type.String({
  maxLength: 63,
  description: 'a-z, 0-9 and -; does not begin with -',
})
const size = Type.Integer({ description: 'Whole MiB, 64 MiB to 256 GiB, in bytes' })
const tenant = Type.String({ maxLength: 64 })
const tenantParams = Type.Object({ tenant }, closed)
export const VOLUME_PARAMS: TObject<{ tenant: TString; volume: TString }> = Type.Object(
  { tenant, volume: Type.String({ maxLength: 64 }) },
  closed,
)

/** What is no name cannot exist. @throws ApiError NOT_FOUND */
export function volumeNamed(input: string): VolumeName {
  try {
    return parseVolumeName(input)
  } catch {
    throw notFound()
  }
}

type Wish = Pick<VolumeCall, 'volume' | 'operation'> &
  Partial<Pick<VolumeCall, 'sizeBytes' | 'snapshot'>>

export async function volumeCallOf(
  { tenants }: LaunchPorts,
  request: FastifyRequest,
  owner: string,
  wish: Wish,
): Promise<VolumeCall> {
  const scope = await scopeOf(tenants, request, owner)
  const who = { scope, caller: callerOf(request), origin: originOf(request) }
  return { sizeBytes: null, snapshot: null, ...who, ...wish }
}

/** Does it, and shows the volume as it is then. */
export async function changedVolume(ports: LaunchPorts, call: VolumeCall): Promise<VolumeView> {
  await changeVolume(ports, call)
  return volumeView(await findVolume(ports, call.scope, call.volume))
}

const views: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.get(
      '/v1/tenants/:tenant/volumes',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'List volumes, each with its snapshots',
          params: tenantParams,
          response: { 200: VOLUMES, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        return { volumes: (await listVolumes(ports, scope)).map(volumeView) }
      },
    )
    app.get(
      '/v1/tenants/:tenant/volumes/:volume',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'One volume, with its snapshots',
          params: VOLUME_PARAMS,
          response: { 200: VOLUME, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        return volumeView(await findVolume(ports, scope, volumeNamed(request.params.volume)))
      },
    )
    done()
  }

const changes: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/volumes',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'Create an empty volume',
          params: tenantParams,
          body: Type.Object({ name: VOLUME_NAME, size_bytes: size }, closed),
          response: { 201: VOLUME, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const volume = parseVolumeName(request.body.name)
        const sizeBytes = parseVolumeBytes(request.body.size_bytes)
        const wish = { volume, operation: 'create', sizeBytes } as const
        const call = await volumeCallOf(ports, request, request.params.tenant, wish)
        return await reply.code(201).send(await inTime(reply, changedVolume(ports, call)))
      },
    )
    app.delete(
      '/v1/tenants/:tenant/volumes/:volume',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'Destroy a volume that no pod has and that has no snapshots',
          params: VOLUME_PARAMS,
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const wish = { volume: volumeNamed(request.params.volume), operation: 'remove' } as const
        const call = await volumeCallOf(ports, request, request.params.tenant, wish)
        await inTime(reply, changeVolume(ports, call))
        return await reply.code(204).send(null)
      },
    )
    app.post(
      '/v1/tenants/:tenant/volumes/:volume/grow',
      {
        schema: {
          tags: VOLUME_TAGS,
          summary: 'Make a volume larger that no pod has; its next pod has the room',
          params: VOLUME_PARAMS,
          body: Type.Object({ size_bytes: size }, closed),
          response: { 200: VOLUME, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const sizeBytes = parseVolumeBytes(request.body.size_bytes)
        const wish = {
          volume: volumeNamed(request.params.volume),
          operation: 'grow',
          sizeBytes,
        } as const
        const call = await volumeCallOf(ports, request, request.params.tenant, wish)
        return await inTime(reply, changedVolume(ports, call))
      },
    )
    done()
  }

export const volumeRoutes = (ports: LaunchPorts): readonly FastifyPluginCallback[] => [
  views(ports),
  changes(ports),
]
