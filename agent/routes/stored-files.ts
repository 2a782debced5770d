/** /v1/tenants/{tenant}/configs and /secrets: files that a tenant keeps here for its pods. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import {
  type FastifyPluginCallbackTypebox,
  type TSchema,
  Type,
} from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback, FastifyRequest } from 'fastify'
import { parseFileName, STORED_KINDS, type StoredKind } from '../../policy/index.ts'
import type { StoredFile } from '../../tenants/index.ts'
import { ApiError, notFound } from '../errors.ts'
import { callerOf } from '../identity.ts'
import {
  type FileCall,
  removeFile,
  type StoredFilePorts,
  showFile,
  storeFile,
} from '../tasks/stored-files.ts'
import { closed, PROBLEMS } from './schemas.ts'
import { originOf, scopeOf } from './shared.ts'

/** 512 KiB in base64, with its name and JSON around it. */
export const STORED_BODY_BYTES_MAX: number = 800 * 1024

const view = {
  name: Type.String(),
  version: Type.String({ description: 'Random; records of launches that use it have it' }),
  size: Type.Integer({ description: 'Bytes' }),
  created: Type.String({ format: 'date-time' }),
  by: Type.String({ description: 'Identity that stored it' }),
}
const FILE: TSchema = Type.Object(view, closed)
const FILES: TSchema = Type.Object({ files: Type.Array(Type.Object(view, closed)) }, closed)
const CONFIG: TSchema = Type.Object(
  { ...view, content: Type.String({ description: 'Base64' }) },
  closed,
)
const tenantParams = Type.Object({ tenant: Type.String({ maxLength: 64 }) }, closed)
const fileParams = Type.Object(
  { tenant: Type.String({ maxLength: 64 }), name: Type.String({ maxLength: 64 }) },
  closed,
)
const body = Type.Object(
  {
    name: Type.String({ maxLength: 64 }),
    content: Type.String({ maxLength: 720_000, writeOnly: true, description: 'Base64' }),
  },
  closed,
)

const viewOf = ({ name, version, size, createdMs, identity }: StoredFile): object => ({
  name,
  version,
  size,
  created: new Date(createdMs).toISOString(),
  by: identity,
})

/** @throws ApiError BAD_REQUEST, without a word of the content */
function contentOf(text: string): Uint8Array {
  const content = Buffer.from(text, 'base64')
  if (content.toString('base64') === text) return content
  throw new ApiError('BAD_REQUEST', 'The content must be base64 with its padding.')
}

/** What is no name names nothing. @throws ApiError NOT_FOUND */
function nameOf(text: string): FileCall['name'] {
  try {
    return parseFileName(text)
  } catch {
    throw notFound()
  }
}

async function callOf(
  ports: StoredFilePorts,
  request: FastifyRequest,
  wire: { readonly tenant: string; readonly kind: StoredKind; readonly name: FileCall['name'] },
): Promise<FileCall> {
  const scope = await scopeOf(ports.tenants, request, wire.tenant)
  const { kind, name } = wire
  return { scope, caller: callerOf(request), origin: originOf(request), kind, name }
}

const tags = ['files']
const placeOf = (kind: StoredKind): string => `/v1/tenants/:tenant/${kind}s`

/** One comes, one goes. */
const commands =
  (ports: StoredFilePorts, kind: StoredKind): FastifyPluginCallbackTypebox =>
  (app, _options, done) => {
    const all = placeOf(kind)
    app.post(
      all,
      {
        bodyLimit: STORED_BODY_BYTES_MAX,
        schema: {
          tags,
          summary: `Keep a ${kind} for pods, encrypted`,
          params: tenantParams,
          body,
          response: { 201: FILE, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const { tenant } = request.params
        const name = parseFileName(request.body.name)
        const call = await callOf(ports, request, { tenant, kind, name })
        const file = await storeFile(ports, call, contentOf(request.body.content))
        return await reply.code(201).send(viewOf(file))
      },
    )
    app.delete(
      `${all}/:name`,
      {
        schema: {
          tags,
          summary: `Remove a ${kind}; pods that have it keep it`,
          params: fileParams,
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const { tenant, name } = request.params
        await removeFile(ports, await callOf(ports, request, { tenant, kind, name: nameOf(name) }))
        return await reply.code(204).send(null)
      },
    )
    done()
  }

const queries =
  (ports: StoredFilePorts, kind: StoredKind): FastifyPluginCallbackTypebox =>
  (app, _options, done) => {
    const all = placeOf(kind)
    app.get(
      all,
      {
        schema: {
          tags,
          summary: `List ${kind}s`,
          params: tenantParams,
          response: { 200: FILES, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        return { files: (await ports.tenants.files.list(scope, kind)).map(viewOf) }
      },
    )
    app.get(
      `${all}/:name`,
      {
        schema: {
          tags,
          summary: kind === 'secret' ? 'Show a secret, without its content' : 'Show a config',
          params: fileParams,
          response: { 200: kind === 'secret' ? FILE : CONFIG, ...PROBLEMS },
        },
      },
      async (request) => {
        const { tenant, name } = request.params
        const call = await callOf(ports, request, { tenant, kind, name: nameOf(name) })
        const { file, content } = await showFile(ports, call)
        if (content === null) return viewOf(file)
        return { ...viewOf(file), content: Buffer.from(content).toString('base64') }
      },
    )
    done()
  }

export const storedFileRoutes = (ports: StoredFilePorts): readonly FastifyPluginCallback[] =>
  STORED_KINDS.flatMap((kind) => [commands(ports, kind), queries(ports, kind)])
