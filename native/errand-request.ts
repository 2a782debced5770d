/** What our own code is to do in a running pod, in place of a program: the other form of an EXEC (docs/formats.md section 7). */
import { canonicalBytes } from '../policy/canonical.ts'
import type { PodPath, User } from '../policy/index.ts'
import { type ExecRequest, requestOf } from './exec-request.ts'

/** Where the entries of an archive go: below a directory, or, one thing, to a name. */
export const PLACES = ['inside', 'named'] as const
export type CopyPlace = (typeof PLACES)[number]

export type Errand =
  | {
      readonly kind: 'copy-in'
      readonly path: PodPath
      readonly place: CopyPlace
      /** Root keeps the owners that the archive names; else all becomes the user's own. */
      readonly owners: boolean
    }
  | { readonly kind: 'copy-out'; readonly path: PodPath }
  | { readonly kind: 'processes' }

export interface ErrandWish {
  readonly errand: Errand
  /** null: the app's. */
  readonly user: User | null
}

export const errandRequest = ({ errand, user }: ErrandWish): ExecRequest =>
  requestOf(canonicalBytes({ app: null, errand: { ...errand }, user }))
