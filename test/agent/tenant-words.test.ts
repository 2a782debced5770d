/** Words of the host's own parts, as a tenant may read them. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { pathless } from '../../agent/tasks/tenant-words.ts'

suite('agent/tenant-words', () => {
  test('have no path of the host, whatever it begins with', () => {
    for (const path of ['/var/lib/x', '/@snap/x', '/été/x', '/.hidden/x', '/x']) {
      for (const words of [path, `open ${path}: EPERM`, `in "${path}"`, `root=${path},rw`]) {
        const told = pathless(words)
        assert.ok(told.includes('(a path of the host)') && !told.includes('x'), `${words}: ${told}`)
      }
    }
  })

  test('are left alone where they have none', () => {
    for (const words of ['12/24 done', 'and/or', 'a / b', 'sha256:ab', 'TCP/IP']) {
      assert.equal(pathless(words), words)
    }
  })
})
