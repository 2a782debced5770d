/** What is mounted in a pod, in the body of its launch. */
import { type Static, type TArray, type TUnsafe, Type } from '@fastify/type-provider-typebox'
import { type FileWords, MOUNTS_MAX, type MountWords } from '../../policy/index.ts'
import { closed } from './schemas.ts'

const PATH_CHARACTERS_MAX = 4096

const mount = Type.Object(
  {
    type: Type.Union(
      [Type.Literal('tmpfs'), Type.Literal('empty'), Type.Literal('volume'), Type.Literal('host')],
      {
        description:
          'tmpfs: memory. empty: an empty directory, gone with the pod. volume: a named one, which stays. host: a path of the host that the provider lists',
      },
    ),
    target: Type.String({ maxLength: PATH_CHARACTERS_MAX, description: 'Where: an absolute path' }),
    volume: Type.Optional(Type.String({ maxLength: 63, description: 'Of a volume: its name' })),
    host_path: Type.Optional(
      Type.String({ maxLength: 63, description: 'Of a path of the host: the provider’s name' }),
    ),
    sub_path: Type.Optional(
      Type.String({
        maxLength: 512,
        description: 'Of a volume and a path of the host: what of it, reached through no link',
      }),
    ),
    medium: Type.Optional(
      Type.Union([Type.Literal('disk'), Type.Literal('memory')], {
        description: 'Of an empty directory: the scratch disk, or memory. Without it, disk',
      }),
    ),
    size_bytes: Type.Optional(
      Type.Integer({ description: 'Most that it holds, in memory only; half of the pod’s memory' }),
    ),
    mode: Type.Optional(
      Type.String({ maxLength: 4, description: 'Permissions, octal; 1777 if left out' }),
    ),
    exec: Type.Optional(
      Type.Boolean({ description: 'Of a tmpfs: whether programs in it may be started; true' }),
    ),
    read_only: Type.Optional(
      Type.Boolean({
        description: 'Of all but an empty directory: nothing can be written there; false',
      }),
    ),
  },
  closed,
)

/** Compiles only while schema and type say the same. */
export const MOUNTS: TArray<TUnsafe<MountWords>> = Type.Array(
  Type.Unsafe<Static<typeof mount>>(mount),
  { maxItems: MOUNTS_MAX, description: 'Mounted beside the image, the outer ones first' },
)

const CONTENT_CHARACTERS_MAX = 131_072
const file = Type.Object(
  {
    config: Type.Optional(Type.String({ maxLength: 63, description: 'Name of a stored config' })),
    secret: Type.Optional(Type.String({ maxLength: 63, description: 'Name of a stored secret' })),
    content: Type.Optional(
      Type.String({
        maxLength: CONTENT_CHARACTERS_MAX,
        description: 'Base64. It is kept with the request: for a secret, store one',
      }),
    ),
    target: Type.Optional(
      Type.String({
        maxLength: PATH_CHARACTERS_MAX,
        description: 'Where; /run/config/NAME or /run/secrets/NAME if left out',
      }),
    ),
    mode: Type.Optional(
      Type.String({ maxLength: 4, description: 'Permissions, octal; 444, of a secret 400' }),
    ),
    uid: Type.Optional(Type.Integer({ description: 'Whose it is; 0' })),
    gid: Type.Optional(Type.Integer({ description: 'Of which group; 0' })),
  },
  closed,
)

/** Likewise. */
export const FILES: TArray<TUnsafe<FileWords>> = Type.Array(
  Type.Unsafe<Static<typeof file>>(file),
  { maxItems: MOUNTS_MAX, description: 'Single files, in memory only, that nobody can write' },
)
