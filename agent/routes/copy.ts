/**
 * /v1/tenants/{tenant}/pods/{pod}/copy: a tar archive out of a running pod (channel 1) or into it (channel 0), over the
 * same protocol as exec. Our own code in the pod reads or writes it; what it leaves out, and why, is on channel 2.
 */
import { Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback } from 'fastify'
import { type CopyPlace, type Errand, PLACES } from '../../native/errand-request.ts'
import { BadNoun, parsePodPath, parseUser } from '../../policy/index.ts'
import type { ExecPorts } from '../tasks/exec.ts'
import { closed } from './schemas.ts'
import { type Sought, sessionRoute } from './sessions.ts'

interface Query {
  readonly direction: 'in' | 'out'
  readonly path: string
  readonly user?: string
  readonly place?: CopyPlace
  readonly owners?: 'true' | 'false'
}

const query = Type.Object(
  {
    direction: Type.Enum(['in', 'out']),
    path: Type.String({ description: 'Absolute; links in it lead where they lead in the pod' }),
    user: Type.Optional(Type.String({ description: 'In place of the app’s' })),
    place: Type.Optional(
      Type.Enum([...PLACES], {
        description:
          'Of `in`: `inside` a directory that is there, or one thing `named` as the path, which is also the default',
      }),
    ),
    owners: Type.Optional(
      Type.Enum(['true', 'false'], {
        description: 'Of `in`: root keeps the owners that the archive names',
      }),
    ),
  },
  closed,
)

function errandOf({ direction, path: text, place, owners }: Query): Errand {
  const path = parsePodPath(text)
  if (direction === 'in') {
    return { kind: 'copy-in', path, place: place ?? 'named', owners: owners === 'true' }
  }
  if (place !== undefined || owners !== undefined) {
    throw new BadNoun('direction', 'must be in, for place and owners')
  }
  return { kind: 'copy-out', path }
}

function seek(asked: Query): Sought {
  const isIn = asked.direction === 'in'
  const user = asked.user === undefined ? null : parseUser(asked.user)
  return {
    wish: { errand: errandOf(asked), user },
    wanted: { stdin: isIn, stdout: !isIn, stderr: true, terminal: false },
  }
}

export const copyRoutes = (ports: ExecPorts): FastifyPluginCallback =>
  sessionRoute<Query>(ports, {
    name: 'copy',
    summary:
      'Copy files into a running pod or out of it: a WebSocket of Kubernetes’ channel protocol',
    querystring: query,
    seek: ({ query: asked }) => seek(asked),
  })
