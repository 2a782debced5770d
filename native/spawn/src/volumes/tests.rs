use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

const SIZE: u64 = 64 << 20;

struct Place {
    state: PathBuf,
    empty: OwnedFd,
}

impl Place {
    fn new(name: &str) -> Self {
        let state =
            std::env::temp_dir().join(format!("casemate-volumes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&state);
        fs::create_dir(&state).unwrap();
        let empty = state.join("empty.img");
        fs::write(&empty, [7; 8192]).unwrap();
        Self { empty: File::open(empty).unwrap().into(), state }
    }

    fn volumes(&self) -> Volumes {
        Volumes::open(&self.state).unwrap()
    }

    fn create(&self, volumes: &Volumes, name: &Name<'_>) {
        volumes.create(name, (&self.empty, 8192), SIZE).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.state).unwrap();
    }
}

fn data() -> Name<'static> {
    Name { tenant: "acme", volume: "data", snapshot: None }
}

fn copy(volumes: &Volumes, into: Name<'static>, from: &OwnedFd, facts: Facts) {
    let to = volumes.begin(&into).unwrap();
    sparse::copy_data(from.as_fd(), facts.size_bytes, to.as_fd()).unwrap();
    volumes.finish(&into, &to, facts.copied(), into.snapshot.is_none()).unwrap();
}

#[test]
fn makes_lists_and_destroys_what_is_roots_alone() {
    let place = Place::new("make");
    let volumes = place.volumes();
    assert!(volumes.list("acme").unwrap().is_empty());
    place.create(&volumes, &data());
    let file = place.state.join("volumes/acme/data/data");
    let facts = fs::metadata(&file).unwrap();
    assert_eq!((facts.len(), facts.mode() & 0o777, facts.blocks()), (SIZE, 0o600, 16));
    assert_eq!(fs::metadata(place.state.join("volumes")).unwrap().mode() & 0o777, 0o700);
    let [listed] = <[Listed; 1]>::try_from(place.volumes().list("acme").unwrap()).unwrap();
    assert_eq!((listed.volume.as_str(), listed.used_bytes), ("data", 8192));
    assert_eq!((listed.facts.size_bytes, listed.facts.machine), (SIZE, false));
    assert!(volumes.list("other").unwrap().is_empty());
    assert!(volumes.create(&data(), (&place.empty, 8192), SIZE).is_err(), "never over another");
    assert_eq!(volumes.promised_and_free().unwrap().0, SIZE - 8192);
    volumes.remove(&data()).unwrap();
    assert!(volumes.facts(&data()).unwrap().is_none());
    assert_eq!(volumes.known(&data()).unwrap_err().code, "VOLUME_UNKNOWN");
    assert_eq!(fs::read_dir(place.state.join("volumes/acme")).unwrap().count(), 0);
}

#[test]
fn a_disk_is_one_holders_until_the_last_copy_of_its_descriptor_is_gone() {
    let place = Place::new("hold");
    let volumes = place.volumes();
    place.create(&volumes, &data());
    for access in [Access::ReadWrite, Access::Read] {
        let (held, _) = volumes.hold(&data(), access).unwrap();
        let copy = held.try_clone().unwrap();
        drop(held);
        for other in [Access::ReadWrite, Access::Read] {
            // Of the next spawn as well, which remembers nothing.
            let refusal = place.volumes().hold(&data(), other).unwrap_err();
            assert_eq!(refusal.code, "VOLUME_BUSY");
        }
        let written = File::from(copy).write_at(b"x", 0);
        assert_eq!(written.is_ok(), access == Access::ReadWrite);
    }
    volumes.hold(&data(), Access::Read).unwrap();
}

#[test]
fn a_crash_leaves_a_volume_as_it_was_and_nothing_half_made() {
    let place = Place::new("crash");
    let volumes = place.volumes();
    place.create(&volumes, &data());
    let half = Name { volume: "half", ..data() };
    let to = volumes.begin(&half).unwrap();
    to.set_len(SIZE).unwrap();
    // Grown, and not written down.
    let file = place.state.join("volumes/acme/data/data");
    OpenOptions::new().write(true).open(&file).unwrap().set_len(2 * SIZE).unwrap();
    fs::rename(place.state.join("volumes/acme/.new-half"), place.state.join("x")).unwrap();
    fs::rename(place.state.join("x"), place.state.join("volumes/acme/.old-half")).unwrap();
    let next = place.volumes();
    assert_eq!(next.list("acme").unwrap().len(), 1);
    assert!(!place.state.join("volumes/acme/.old-half").exists());
    let (held, facts) = next.hold(&data(), Access::Read).unwrap();
    assert_eq!(facts.size_bytes, SIZE);
    assert_eq!(rustix::fs::fstat(&held).unwrap().st_size, 64 << 20);
}

#[test]
fn a_snapshot_keeps_bytes_and_where_they_are_from() {
    let place = Place::new("snapshot");
    let volumes = place.volumes();
    place.create(&volumes, &data());
    let monday = Name { snapshot: Some("monday"), ..data() };
    let (held, facts) = volumes.hold(&data(), Access::ReadWrite).unwrap();
    copy(&volumes, monday, &held, facts);
    volumes.write_down(&data(), Facts { machine: true, ..facts }).unwrap();
    File::from(held).write_at(b"changed", 0).unwrap();
    let tuesday = Name { snapshot: Some("tuesday"), ..data() };
    let (held, facts) = volumes.hold(&data(), Access::Read).unwrap();
    copy(&volumes, tuesday, &held, facts);
    let machine = |name: &Name<'_>| volumes.known(name).unwrap().machine;
    assert_eq!([machine(&monday), machine(&tuesday), machine(&data())], [false, true, true]);
    let bytes = |name: &Name<'_>| {
        let mut bytes = [0; 7];
        File::from(volumes.read_only(name).unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert_eq!(
        [bytes(&monday), bytes(&tuesday), bytes(&data())],
        [[7; 7], *b"changed", *b"changed"]
    );
    let facts = volumes.known(&monday).unwrap();
    copy(&volumes, data(), &volumes.read_only(&monday).unwrap(), facts);
    assert_eq!(
        (bytes(&data()), machine(&data())),
        ([7; 7], false),
        "the bytes are the kernel's again"
    );
    let listed = volumes.list("acme").unwrap();
    let names: Vec<_> = listed.iter().map(|one| one.snapshot.as_deref()).collect();
    assert_eq!(names, [None, Some("monday"), Some("tuesday")]);
    assert!(File::from(volumes.read_only(&monday).unwrap()).write_at(b"x", 0).is_err());
}
