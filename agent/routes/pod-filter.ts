/** Which pods a list shows. Applied to each page as it was read, so a page may hold fewer than its limit. */
import { type TUnsafe, Type } from '@fastify/type-provider-typebox'
import { closed } from './schemas.ts'
import type { PodView } from './views.ts'

const text = (description: string) => Type.Optional(Type.String({ maxLength: 512, description }))
const members = {
  limit: Type.Optional(
    Type.String({ pattern: '^[0-9]{1,4}$', description: '1 to 1000; 100 when left out' }),
  ),
  cursor: text('The `next` of the page before'),
  ended: Type.Optional(
    Type.Union([Type.Literal('true'), Type.Literal('false')], {
      description: 'Also those that have ended for good; true when left out',
    }),
  ),
  state: text('One state'),
  name: text('One name'),
  image: text('What the reference begins with'),
  isolation: text('One level'),
  health: text('starting, healthy or unhealthy; none: it is not asked, or does not run'),
  label: Type.Optional(
    Type.Union(
      [
        Type.String({ maxLength: 512 }),
        Type.Array(Type.String({ maxLength: 512 }), { maxItems: 32 }),
      ],
      {
        description: 'KEY, or KEY=value; repeatable, and then each of them',
      },
    ),
  ),
}

export interface PodListQuery {
  readonly limit?: string
  readonly cursor?: string
  readonly ended?: string
  readonly state?: string
  readonly name?: string
  readonly image?: string
  readonly isolation?: string
  readonly health?: string
  readonly label?: string | string[]
}
export const POD_LIST_QUERY: TUnsafe<PodListQuery> = Type.Unsafe<PodListQuery>(
  Type.Object(members, closed),
)

const OVER: ReadonlySet<string> = new Set(['exited', 'failed', 'refused'])

function hasLabel({ labels }: PodView, wanted: string): boolean {
  const [key = '', ...rest] = wanted.split('=')
  if (!Object.hasOwn(labels, key)) return false
  return rest.length === 0 || labels[key] === rest.join('=')
}

const is = (wanted: string | undefined, found: string | null): boolean =>
  wanted === undefined || wanted === found

const healthIn = ({ health }: PodView): string => health?.state ?? 'none'

export function isListed(pod: PodView, query: PodListQuery): boolean {
  const { image = '', label = [], ended } = query
  return (
    (ended !== 'false' || !OVER.has(pod.state)) &&
    is(query.state, pod.state) &&
    is(query.name, pod.name) &&
    is(query.isolation, pod.isolation) &&
    is(query.health, healthIn(pod)) &&
    pod.image.reference.startsWith(image) &&
    [label].flat().every((one) => hasLabel(pod, one))
  )
}
