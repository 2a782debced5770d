use super::*;
use crate::template::samples::template;

const SHAPE: Shape = (1, 128);
const BOOT: &str = "11111111-2222-4333-8444-555555555555";

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("casemate-templates-{}-{name}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        let _ = fs::remove_dir_all(&place.0);
        place
    }

    fn open(&self) -> TemplateStore {
        TemplateStore::open(&self.0, BOOT).unwrap()
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn source(kernel: &str) -> Value {
    object(vec![("kernel", string(kernel))])
}

#[test]
fn gives_back_what_was_kept_sealed_and_only_for_what_it_was_built_of() {
    let place = Place::new("back");
    let kept = template(b"state");
    place.open().keep(&source("a"), SHAPE, &kept).unwrap();
    let store = place.open();
    let found = store.load(&source("a"), SHAPE).unwrap();
    assert_eq!(found.digests, kept.digests);
    assert!(rustix::io::pwrite(&found.memory, b"x", 0).is_err(), "sealed");
    assert_eq!(rustix::fs::fstat(&found.memory).unwrap().st_blocks, 8, "holes stay holes");
    assert_eq!(store.load(&source("b"), SHAPE).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(store.load(&source("a"), (2, 256)).is_err());
    assert_eq!(fs::metadata(&place.0).unwrap().mode() & 0o777, 0o700);
    store.keep(&source("a"), SHAPE, &kept).unwrap();
    assert_eq!(place.entries(), 1, "keeping it again leaves nothing behind");
    store.remove(&source("a"));
    assert!(store.load(&source("a"), SHAPE).is_err());
}

/// What is wrong, and how it comes about in the folder of a template.
type Alteration = (&'static str, fn(&Path));

#[test]
fn takes_no_file_that_was_altered() {
    use std::os::unix::fs::FileExt;
    let place = Place::new("altered");
    let store = place.open();
    let alterations: [Alteration; 6] = [
        ("a byte of memory", |folder| {
            let file = OpenOptions::new().write(true).open(folder.join("memory")).unwrap();
            file.write_all_at(b"x", 100 << 20).unwrap();
        }),
        ("memory that was cut", |folder| {
            let file = OpenOptions::new().write(true).open(folder.join("memory")).unwrap();
            file.set_len(64 << 20).unwrap();
        }),
        ("a byte of state", |folder| fs::write(folder.join("state"), b"statf").unwrap()),
        ("more state than there may be", |folder| {
            let file = OpenOptions::new().write(true).open(folder.join("state")).unwrap();
            file.set_len(STATE_BYTES_MAX + 1).unwrap();
        }),
        ("no description", |folder| fs::write(folder.join("template.json"), "").unwrap()),
        ("another's description", |folder| {
            let text = describe(&source("b"), SHAPE, &template(b"state"));
            fs::write(folder.join("template.json"), text).unwrap();
        }),
    ];
    for (what, alter) in alterations {
        store.remove(&source("a"));
        store.keep(&source("a"), SHAPE, &template(b"state")).unwrap();
        alter(&store.folder(&source("a")));
        let error = store.load(&source("a"), SHAPE).map(|_| what).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
    }
}

#[test]
fn removes_what_is_of_another_boot_or_too_much_and_nothing_else() {
    let place = Place::new("sweep");
    let store = place.open();
    let hours_ago = SystemTime::now() - 2 * UNFINISHED_AGE;
    let age = |folder: &Path| File::open(folder).unwrap().set_modified(hours_ago).unwrap();
    for number in 0..=ENTRIES_MAX {
        store.keep(&source(&number.to_string()), SHAPE, &template(b"state")).unwrap();
        if number == 0 {
            age(&store.folder(&source("0")));
        }
    }
    assert_eq!(place.entries(), ENTRIES_MAX);
    assert!(store.load(&source("0"), SHAPE).is_err(), "the oldest went");
    assert!(store.load(&source(&ENTRIES_MAX.to_string()), SHAPE).is_ok());
    let unfinished = place.0.join(format!("{BOOT}-aa.1{UNFINISHED}"));
    fs::create_dir(&unfinished).unwrap();
    place.open();
    assert_eq!(place.entries(), ENTRIES_MAX + 1, "somebody may be writing it");
    age(&unfinished);
    place.open();
    assert_eq!(place.entries(), ENTRIES_MAX, "nobody writes that long");
    TemplateStore::open(&place.0, "another boot").unwrap();
    assert_eq!(place.entries(), 0);
}

#[test]
fn wants_a_directory_of_its_own() {
    let place = Place::new("own");
    fs::create_dir(&place.0).unwrap();
    std::os::unix::fs::symlink("/tmp", place.0.join("link")).unwrap();
    assert!(TemplateStore::open(&place.0.join("link"), BOOT).is_err(), "a link leads elsewhere");
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    std::os::unix::fs::chown(&place.0, Some(61_000), None).unwrap();
    assert!(TemplateStore::open(&place.0, BOOT).is_err(), "somebody else's");
}
