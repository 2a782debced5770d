/** Every cap on what registries may send. Sizes in bytes, times in milliseconds. */
const MIB = 1024 * 1024

/** distribution-spec: manifests up to 4 MiB must be accepted by registries; larger never are here. */
export const MANIFEST_BYTES_MAX: number = 4 * MIB
export const CONFIG_BYTES_MAX: number = 8 * MIB
/** A simplesigning payload or a sigstore bundle. */
export const SIGNATURE_BYTES_MAX: number = MIB
/** All signatures of one image together. */
export const SIGNATURES_BYTES_MAX: number = 4 * MIB
/** Notation (CVE-2023-33957) and cosign (CVE-2024-29902) were made to fetch without end. */
export const SIGNATURES_MAX = 64
export const REFERRERS_MAX = 1000
export const REFERRER_PAGES_MAX = 10
export const INDEX_ENTRIES_MAX = 1000
/** What Docker's overlay driver can stack; also keeps a build's descriptors under spawn's 250. */
export const LAYERS_MAX = 127
/** Layers of one image, packed. */
export const PACKED_BYTES_MAX: number = 4096 * MIB
/** Layers of one image, unpacked. */
export const UNPACKED_BYTES_MAX: number = 8192 * MIB
/** What a root image is given at first: this many times its layers as packed, and so many bytes more. */
export const ROOTFS_LIKELY_RATIO = 4
export const ROOTFS_LIKELY_BYTES: number = 16 * MIB
/** A root image with its Merkle tree; spawn gives a worker no more (native/spawn/src/workers.rs). */
export const ROOTFS_BYTES_MAX: number = 12_288 * MIB
/** Names in the image; the worker keeps each in memory. */
export const ENTRIES_MAX = 400_000
/** Unpacked to packed, of one layer, for layers that unpack to more than RATIO_FROM_BYTES. */
export const RATIO_MAX = 100
export const RATIO_FROM_BYTES: number = 8 * MIB
export const JSON_DEPTH_MAX = 32

export const TOKEN_BYTES_MAX: number = MIB / 16
export const DOCUMENT_MS = 30_000
export const BLOB_MS = 900_000
export const BUILD_MS = 600_000
/** Fetching all signatures of one image. */
export const COLLECT_MS = 60_000
/** Checking all signatures of one image, in a thread that is ended after it. */
export const CHECK_MS = 10_000

/**
 * Free bytes that the file system of the state directory keeps, and which share of it: the larger of
 * the two. They are the audit log's, and the pods'.
 */
export const FREE_BYTES_MIN: number = 2048 * MIB
export const FREE_SHARE_MIN = 0.05

/** Room that one tenant may have reserved: a slow registry holds it for as long as a pull may take. */
export const RESERVED_BYTES_MAX: number = 16_384 * MIB

/**
 * What one tenant's images may take on the disk at any time: its caches, what its pods have open, and
 * what is reserved. Twice the largest image, packed and unpacked.
 */
export const IMAGES_BYTES_MAX: number = 32_768 * MIB
/** The same in files. Each takes an inode, and all are looked at before something is pulled or built. */
export const IMAGES_FILES_MAX = 4096
