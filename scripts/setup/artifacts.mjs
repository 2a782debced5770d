/** Puts everything that was built into one folder and writes down what it is. */
import path from 'node:path'
import { describeFile, replaceFile, replaceText } from './files.mjs'
import { artifacts, cache } from './paths.mjs'

const place = (name) => path.join(artifacts, name)

const disk = ({ source: _source, ...description }) => description

/** Copies built files into the folder. */
export function collect(files) {
  for (const [name, { from, mode }] of Object.entries(files)) replaceFile(from, place(name), mode)
}

/**
 * artifacts.json: what agent, spawn's configuration and tests take the files from.
 * Paths are absolute and of this checkout; digests are `sha256:<hex>` of the whole file.
 */
export function writeManifest({ init, hello, scratch, volume, addon, registry }) {
  const manifest = {
    v: 'casemate.artifacts/1',
    kernel: {
      hardware: describeFile(place('vmlinux')),
      software: describeFile(place('vmlinux-softkvm')),
    },
    init: { ...describeFile(place('init.img')), ...disk(init) },
    scratch: { path: place('scratch.img'), ...disk(scratch) },
    volume: { path: place('volume.img'), ...disk(volume) },
    hello: { ...describeFile(place('hello.img')), ...disk(hello) },
    attack: describeFile(place('attack.elf')),
    vmm: describeFile(place('casemate-vmm')),
    spawn: describeFile(place('casemate-spawn')),
    container: describeFile(place('casemate-container')),
    addon: addon === null ? null : { path: addon },
    registry: { path: registry },
    templates: { path: path.join(cache, 'templates') },
  }
  replaceText(place('artifacts.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  return manifest
}
