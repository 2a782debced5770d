/** /v1/tenants/{tenant}/pods/{pod}/…: what is done to a running pod and seen of it, beside its end. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ApiError } from '../errors.ts'
import { callerOf } from '../identity.ts'
import type { ChangeCall } from '../tasks/changes.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import { setPaused } from '../tasks/pause.ts'
import { resize } from '../tasks/resize.ts'
import { stats } from '../tasks/stats.ts'
import { closed, POD, POD_PARAMS, PROBLEMS, STATS } from './schemas.ts'
import { originOf, scopeOf, shown, startOf } from './shared.ts'

const tags = ['pods']
const resizeBody = Type.Object(
  {
    scratch_bytes: Type.Integer({
      minimum: 4096,
      maximum: 2 ** 40,
      multipleOf: 4096,
      description: 'All bytes of the disk; never fewer than it has',
    }),
  },
  closed,
)
const nothing = Type.Object({}, closed)

interface PodParams {
  readonly tenant: string
  readonly pod: string
}

export async function callOf(
  ports: LaunchPorts,
  request: FastifyRequest,
  params: PodParams,
): Promise<ChangeCall> {
  const scope = await scopeOf(ports.tenants, request, params.tenant)
  const { id } = await startOf(ports.tenants, scope, params.pod)
  return { scope, caller: callerOf(request), origin: originOf(request), pod: id }
}

/** Tells who changes pods too often when to come back, in the header as well. */
export async function inTime<T>(reply: FastifyReply, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    const seconds = error instanceof ApiError ? error.facts['retry_after_s'] : undefined
    if (typeof seconds === 'number') void reply.header('retry-after', seconds)
    throw error
  }
}

export const podControlRoutes: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    for (const verb of ['pause', 'resume'] as const) {
      app.post(
        `/v1/tenants/:tenant/pods/:pod/${verb}`,
        {
          schema: {
            tags,
            summary:
              verb === 'pause' ? 'Have a pod stand still where it is' : 'Let a paused pod go on',
            params: POD_PARAMS,
            body: nothing,
            response: { 200: POD, ...PROBLEMS },
          },
        },
        async (request, reply) => {
          const call = await callOf(ports, request, request.params)
          const pod = await inTime(reply, setPaused(ports, call, verb === 'pause'))
          return shown(ports, pod)
        },
      )
    }
    app.post(
      '/v1/tenants/:tenant/pods/:pod/resize',
      {
        schema: {
          tags,
          summary: 'Give a running pod more disk, and wait until its file system has grown',
          params: POD_PARAMS,
          body: resizeBody,
          response: { 200: POD, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const call = await callOf(ports, request, request.params)
        const { scratch_bytes: scratchBytes } = request.body
        const pod = await inTime(reply, resize(ports, { ...call, scratchBytes }))
        return shown(ports, pod)
      },
    )
    app.get(
      '/v1/tenants/:tenant/pods/:pod/stats',
      {
        schema: {
          tags,
          summary: 'What a running pod takes of the host, and what its VMM counted',
          params: POD_PARAMS,
          response: { 200: STATS, ...PROBLEMS },
        },
      },
      async (request) => await stats(ports, await callOf(ports, request, request.params)),
    )
    done()
  }
