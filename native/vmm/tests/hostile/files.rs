//! The files of one VM, and the document that names them: what spawn and the agent would have made.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use casemate_ticket::bytes::{Digest, encode_hex};
use casemate_ticket::document::{Context, LaunchDocument, Mode};
use casemate_ticket::json::{self, Value};
use casemate_ticket::note::LogKey;
use casemate_ticket::spec::KvmClass;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::attack::{Attack, attack};
use crate::documents::{self, LOG_SIZE, NODE, SCRATCH_BLOCK, SCRATCH_SIZE, object, set, text};
use crate::guest;

/// Blocks of the tenant's image, each of one byte; its tree is one more.
const IMAGE_BLOCKS: u8 = 8;
const BLOCK: usize = 4096;
const INIT: [u8; BLOCK] = [9; BLOCK];

/// Files that no guest may change, and one that it may.
pub struct Files {
    pub init: File,
    pub image: File,
    pub kernel: File,
    pub scratch: File,
    pub log: File,
}

fn memfd(bytes: &[u8], size: i64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("hostile", flags).unwrap());
    file.set_len(size.try_into().unwrap()).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A file of these bytes for ever.
pub fn sealed(bytes: &[u8]) -> File {
    let file = memfd(bytes, 0);
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals).unwrap();
    file
}

/// The same file, opened for reading alone.
pub fn read_only(file: &File) -> OwnedFd {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap().into()
}

pub fn read(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn image_bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (1..=IMAGE_BLOCKS).flat_map(|block| [block; BLOCK]).collect();
    let mut leaves: Vec<u8> = bytes.chunks(BLOCK).flat_map(|block| Digest::of(block).0).collect();
    leaves.resize(BLOCK, 0);
    bytes.extend(leaves);
    bytes
}

/// What the scratch disk holds at first.
pub fn scratch_bytes() -> Vec<u8> {
    let mut bytes = SCRATCH_BLOCK.to_vec();
    bytes.resize(SCRATCH_SIZE.try_into().unwrap(), 0);
    bytes
}

impl Files {
    pub fn new() -> Self {
        Self {
            init: memfd(&INIT, 0),
            image: memfd(&image_bytes(), 0),
            kernel: sealed(guest::image()),
            scratch: memfd(&SCRATCH_BLOCK, SCRATCH_SIZE),
            log: memfd(&[], LOG_SIZE),
        }
    }

    /// Nothing but these is within a guest's reach, and only scratch may be other than it was. Gives scratch.
    pub fn check(&self, attack: &Attack) -> Vec<u8> {
        let words = attack.words;
        assert!(read(&self.kernel) == guest::image(), "{words}: the kernel was changed");
        assert!(read(&self.init) == INIT, "{words}: init was changed");
        assert!(read(&self.image) == image_bytes(), "{words}: the image was changed");
        let scratch = read(&self.scratch);
        assert_eq!(scratch.len(), scratch_bytes().len(), "{words}");
        assert!(attack.writes || scratch == scratch_bytes(), "{words}: scratch was changed");
        assert_eq!(i64::try_from(read(&self.log).len()), Ok(LOG_SIZE), "{words}");
        scratch
    }
}

fn file(bytes: &[u8]) -> Value {
    object([("digest", text(&Digest::of(bytes).to_string())), ("size", size(bytes.len()))])
}

fn size(bytes: usize) -> Value {
    Value::Integer(bytes.try_into().unwrap())
}

fn verity(blocks: u8, root: &[u8]) -> Value {
    object([
        ("data_blocks", Value::Integer(blocks.into())),
        ("root", text(&encode_hex(&Digest::of(root).0))),
        ("salt", text("")),
    ])
}

/// A spec for `attack` on `build`.
fn spec(build: &Path, attack: &Attack) -> Value {
    let digests = Command::new(build).arg("--digests").output().unwrap().stdout;
    let filters = json::parse(digests.trim_ascii(), 4096).unwrap();
    let describe = object([
        ("kvm", text("software")),
        ("cmdline", text(attack.words)),
        ("vmm", object([("digest", text(&Digest::of(b"").to_string())), ("filters", filters)])),
        ("kernel", file(guest::image())),
        ("init", object([("size", size(BLOCK)), ("verity", verity(1, &INIT))])),
    ]);
    let image = image_bytes();
    let tree = &image[usize::from(IMAGE_BLOCKS) * BLOCK..];
    let mut spec = documents::spec(&describe, "01936f5e-0000-7000-8000-000000000001", &["app"]);
    set(&mut spec, "descriptors.1.size", size(image.len()));
    set(&mut spec, "descriptors.1.verity", verity(IMAGE_BLOCKS, tree));
    set(&mut spec, "limits.boot_ms", Value::Integer(attack.boot_ms));
    set(&mut spec, "machine.vcpus", Value::Integer(attack.vcpus));
    spec
}

/// This host, which trusts a log of the test's own. Its class of KVM is what the document says.
fn context() -> Context {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    Context {
        node: NODE.into(),
        boot_id: boot_id.trim().into(),
        kvm: Some(KvmClass::Software),
        allow_software_kvm: true,
        levels: vec![],
        log_keys: vec![LogKey::parse(&documents::vkey(&documents::key(7))).unwrap()],
    }
}

/// The launch document of a pod; `template` is the state and the memory to restore.
pub fn launch(build: &Path, attack: &Attack, template: Option<&(File, File)>) -> File {
    let mut spec = spec(build, attack);
    if let Some((state, memory)) = template {
        let state = read(state);
        let template = object([
            ("memory", text(&Digest::of(b"only spawn looks").to_string())),
            ("memory_size", Value::Integer(memory.metadata().unwrap().len().try_into().unwrap())),
            ("state", text(&Digest::of(&state).to_string())),
            ("state_size", size(state.len())),
        ]);
        set(&mut spec, "template", template);
    }
    ticketed(&spec)
}

/// The document of a pod with a network, whose guest does nothing.
pub fn networked(build: &Path) -> File {
    let mut spec = spec(build, &attack("idle").within(1));
    documents::connect(&mut spec, "10.88.0.2/24", 1500);
    ticketed(&spec)
}

fn ticketed(spec: &Value) -> File {
    let record = json::write(&documents::record(spec));
    let ticket = documents::ticket(record.as_bytes(), &documents::key(7));
    let (mode, spec) = (Mode::Launch, json::write(spec));
    let document = LaunchDocument { context: context(), mode, record, spec, ticket };
    sealed(document.write().as_bytes())
}

/// The document of a template's build.
pub fn template(build: &Path, attack: &Attack) -> File {
    let spec = spec(build, attack);
    let of = |name: &str| spec.get(name).unwrap().clone();
    let Value::Array(disks) = of("descriptors") else { panic!("no descriptors") };
    let spec = json::write(&object([
        ("v", text("casemate.template-spec/1")),
        ("descriptors", Value::Array(disks[..1].to_vec())),
        ("kernel", of("kernel")),
        ("limits", of("limits")),
        ("machine", of("machine")),
        ("vmm", of("vmm")),
    ]));
    let (mode, record, ticket) = (Mode::Template, String::new(), String::new());
    let document = LaunchDocument { context: context(), mode, record, spec, ticket };
    sealed(document.write().as_bytes())
}
