/** The decision about a config or secret of a tenant's. Their use is part of a launch's: `context.files`. */
import type { ActivePolicies } from './cedar/policies.ts'
import type { FileQuery } from './cedar/query.ts'
import { decidedBy } from './decided.ts'
import { Refusal } from './refusal.ts'

const WORDS = { store_file: 'Storing', show_file: 'Showing', remove_file: 'Removing' } as const

/** null: it is permitted. */
export function refusedFile(query: FileQuery, policies: ActivePolicies): Refusal | null {
  const what = `${WORDS[query.action]} the ${query.kind}`
  const outcome = decidedBy(policies.askFile(query), policies, what)
  return outcome instanceof Refusal ? outcome : null
}
