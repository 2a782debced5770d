import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { EMPTY_ROOT, Frontier, leafHash } from '../../audit/merkle.ts'
import {
  checkpointText,
  openCheckpoint,
  openNote,
  parseDecimal,
  parseVkey,
  signerFromSeed,
  signNote,
} from '../../audit/note.ts'

/** The example of c2sp.org/signed-note. */
const exampleVkey = 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k'
const example =
  'This is an example message.\n\n\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n'

/** Tessera's test log (testdata/log of v1.0.4): its key, its leaves and what it signed. */
const tesseraSeed = Buffer.from('AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg', 'base64').subarray(
  1,
)
const tesseraVkey = 'example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx'
const tesseraLeaves =
  'one two three four five six seven eit nain ten ileven twelf threeten fourten fivten'.split(' ')
const tesseraSigned: readonly (readonly [number, string, string])[] = [
  [
    0,
    '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=',
    'M9e0lhxJACzE1KoUdqKuPa+9p6R7dSW8BlEvrg/noo8FkGg6PbJoRNOcdjqjOq89wVvTA60eubCc4oufo5BvIVEgtQc=',
  ],
  [
    1,
    '0Nc2CrefWKseHj/mStd+LqC8B+NrX0btIiPt2SmN+ek=',
    'M9e0lhr9kuLxGdAtaUrhm84TQffVsLdcy808sN0a3WyniNlfcr9+bywoiIke1YYciCNjJGkCgIlQ8b16jhsmg/SChAM=',
  ],
  [
    15,
    'rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=',
    'M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=',
  ],
]
const tessera = signerFromSeed('example.com/log/testdata', tesseraSeed)

suite('audit/note', () => {
  test('opens the example of the specification', () => {
    const opened = openNote(example, [parseVkey(exampleVkey)])
    assert.equal(opened.text, 'This is an example message.\n')
    assert.equal(opened.signers[0]?.vkey, exampleVkey)
  })

  for (const [size, root, signature] of tesseraSigned) {
    test(`signs Tessera's test log of ${size} byte for byte as Tessera did`, () => {
      assert.equal(tessera.vkey, tesseraVkey)
      const frontier = new Frontier()
      for (const leaf of tesseraLeaves.slice(0, size)) frontier.append(leafHash(Buffer.from(leaf)))
      assert.equal(frontier.root().toString('base64'), root)
      const text = checkpointText({ origin: tessera.name, size, root: frontier.root() })
      const note = signNote(text, tessera)
      assert.equal(note, `${text}\n\u2014 example.com/log/testdata ${signature}\n`)
      assert.deepEqual(openCheckpoint(note, [parseVkey(tesseraVkey)]), {
        origin: tessera.name,
        size,
        root: frontier.root(),
      })
    })
  }

  test('refuses every changed byte of a checkpoint', () => {
    const text = checkpointText({ origin: tessera.name, size: 15, root: EMPTY_ROOT })
    const note = Buffer.from(signNote(text, tessera))
    for (let position = 0; position < note.length; position += 1) {
      const changed = Buffer.from(note)
      changed.writeUInt8(changed.readUInt8(position) ^ 1, position)
      assert.throws(() => openCheckpoint(changed.toString(), [tessera]), `byte ${position}`)
    }
  })

  test('passes over unknown keys, and refuses a known one whose signature fails', () => {
    const unknown = `${example}\u2014 witness.example AAAAAAA=\n`
    assert.doesNotThrow(() => openNote(unknown, [parseVkey(exampleVkey)]))
    const doubled = signNote('This is an example message.\n', tessera)
    const line = doubled.split('\n')[2] ?? ''
    const both = `${example}${line}\n`
    assert.equal(openNote(both, [parseVkey(exampleVkey), tessera]).signers.length, 2)
    const spoilt = both.replace('M9e0l', 'M9e0l').replace(/.{6}=\n$/u, 'AAAAAA=\n')
    assert.throws(() => openNote(spoilt, [parseVkey(exampleVkey), tessera]), {
      code: 'NOTE_SIGNATURE',
    })
    assert.throws(() => openNote(example, [tessera]), { code: 'NOTE_KEY_UNKNOWN' })
    assert.throws(() => openNote(example, []), { code: 'NOTE_KEY_UNKNOWN' })
  })

  test('takes a checkpoint only from the key of its origin', () => {
    const other = signerFromSeed('example.com/other', Buffer.alloc(32, 9))
    const text = checkpointText({ origin: tessera.name, size: 0, root: EMPTY_ROOT })
    assert.throws(() => openCheckpoint(signNote(text, other), [other, tessera]), {
      code: 'NOTE_KEY_UNKNOWN',
    })
  })

  const malformed = [
    '',
    'text\n',
    'text\n\n',
    'text\n\nno dash\n',
    'text\n\n\u2014 name\n',
    'text\n\n\u2014 name !!!!\n',
    'text\n\n\u2014 na+me AAAAAAA=\n',
    'te\u0000xt\n\n\u2014 name AAAAAAA=\n',
    `text\n\n${'\u2014 name AAAAAAA=\n'.repeat(65)}`,
  ]
  for (const note of malformed) {
    test(`refuses ${JSON.stringify(note.slice(0, 30))} as a note`, () => {
      assert.throws(() => openNote(note, [tessera]), { code: 'NOTE_MALFORMED' })
    })
  }

  test('refuses vkeys with another id, type or name', () => {
    for (const vkey of [
      '',
      exampleVkey.replace('530d903a', '530d903b'),
      exampleVkey.replace('+Ae', '+Be'),
      exampleVkey.replace('foo', 'fo o'),
      `${exampleVkey}=`,
    ]) {
      assert.throws(() => parseVkey(vkey), { code: 'NOTE_KEY_MALFORMED' }, vkey)
    }
  })

  test('reads decimals in one spelling', () => {
    assert.equal(parseDecimal('0'), 0)
    assert.equal(parseDecimal('9007199254740991'), Number.MAX_SAFE_INTEGER)
    for (const text of ['', '00', '01', '+1', '-1', '1e3', ' 1', '9007199254740992']) {
      assert.equal(parseDecimal(text), null)
    }
  })
})
