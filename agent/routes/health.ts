/** /v1/health, /v1/version, /v1/doctor — is the agent alive, which one is it, and what is wrong. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import type { FastifyPluginCallbackTypebox } from '@fastify/type-provider-typebox'
import { callerOf } from '../identity.ts'
import { type ExaminePorts, examine } from '../tasks/examine.ts'
import { VERSION } from '../version.ts'
import { DOCTOR, HEALTH, PROBLEMS, VERSIONS } from './schemas.ts'
import { checkView } from './views.ts'

const tags = ['host']

export const healthRoutes: (ports: ExaminePorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.get(
      '/v1/health',
      { schema: { tags, summary: 'The agent answers', response: { 200: HEALTH } } },
      () => ({ status: 'ok' }),
    )
    app.get(
      '/v1/version',
      { schema: { tags, summary: 'Version of agent and API', response: { 200: VERSIONS } } },
      () => ({ version: VERSION, api: 'v1' }),
    )
    app.get(
      '/v1/doctor',
      {
        schema: {
          tags,
          summary: 'What works on this host and what does not',
          response: { 200: DOCTOR, ...PROBLEMS },
        },
      },
      async (request) => {
        ports.tenants.operator(callerOf(request))
        const { checks, findings } = await examine(ports)
        return { checks: checks.map(checkView), findings }
      },
    )
    done()
  }
