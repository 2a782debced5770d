/**
 * What a schema says against a request, as one sentence: which member, and what is permitted there.
 * Ajv's own words for a union of literals are "must be equal to constant", and for a member that
 * nobody knows not even its name.
 */
import type { FastifySchemaValidationError } from 'fastify'

/** Names come from the caller, who may write a long one; the sentence stays a sentence. */
const NAME_CHARACTERS_MAX = 64

const quoted = (value: unknown): string =>
  JSON.stringify(typeof value === 'string' ? value.slice(0, NAME_CHARACTERS_MAX) : value)

function wordsOf(
  error: FastifySchemaValidationError,
  all: readonly FastifySchemaValidationError[],
): string {
  const { keyword, params, instancePath, message } = error
  if (keyword === 'additionalProperties') {
    return `must not have a member ${quoted(params['additionalProperty'])}`
  }
  const permitted = all
    .filter((one) => one.keyword === 'const' && one.instancePath === instancePath)
    .map((one) => quoted(one.params['allowedValue']))
  if (permitted.length > 0) return `must be ${permitted.join(' or ')}`
  return message ?? 'is not as its schema says'
}

/** @param part `body`, `querystring`, `params` or `headers` */
export function schemaError(errors: readonly FastifySchemaValidationError[], part: string): Error {
  const [first] = errors
  if (first === undefined) return new Error(`The ${part} is not as its schema says.`)
  return new Error(`The ${part}${first.instancePath} ${wordsOf(first, errors)}.`)
}
