//! Tar archives, written: POSIX ustar, with a pax header where a name or a number does not fit (IEEE 1003.1, "pax
//! Interchange Format").

/// Bytes of a header, and what bodies are filled up to.
pub(super) const BLOCK: usize = 512;
/// The largest number in eleven octal digits: a size from 8 GiB on does not fit.
const SIZE_MAX: u64 = 0o77_777_777_777;
/// The same of seven.
const ID_MAX: u64 = 0o7_777_777;
const NAME: usize = 100;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    /// Another name of an entry that was there before. Never written.
    HardLink,
    /// A device, a FIFO. Never written.
    Special,
}

/// What an archive says of one.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    /// Relative, any bytes but NUL.
    pub name: Vec<u8>,
    /// Where a link leads, in its own words.
    pub target: Vec<u8>,
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// The bytes before the entry's body.
pub(super) fn header(entry: &Entry) -> Vec<u8> {
    let mut extra = Vec::new();
    if entry.name.len() > NAME {
        record(&mut extra, "path", &entry.name);
    }
    if entry.target.len() > NAME {
        record(&mut extra, "linkpath", &entry.target);
    }
    for (key, number, most) in [
        ("size", entry.size, SIZE_MAX),
        ("uid", entry.uid.into(), ID_MAX),
        ("gid", entry.gid.into(), ID_MAX),
    ] {
        if number > most {
            record(&mut extra, key, number.to_string().as_bytes());
        }
    }
    let mut out = Vec::new();
    if !extra.is_empty() {
        let size = u64::try_from(extra.len()).unwrap_or(u64::MAX);
        let pax = Entry { name: b"pax".to_vec(), target: Vec::new(), size, ..entry.clone() };
        out.extend(block(&pax, b'x'));
        out.extend(&extra);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let kind = match entry.kind {
        Kind::Directory => b'5',
        Kind::Link => b'2',
        _ => b'0',
    };
    out.extend(block(entry, kind));
    out
}

/// `length key=value\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len().saturating_add(value.len()).saturating_add(3);
    let mut length = rest;
    while length != rest.saturating_add(length.to_string().len()) {
        length = rest.saturating_add(length.to_string().len());
    }
    out.extend(format!("{length} {key}=").as_bytes());
    out.extend(value);
    out.push(b'\n');
}

fn block(entry: &Entry, kind: u8) -> Vec<u8> {
    let digits = |number: u64, width: usize| {
        let most = if width == 11 { SIZE_MAX } else { ID_MAX };
        format!("{:0width$o}\0", number.min(most)).into_bytes()
    };
    let text = |bytes: &[u8], width: usize| {
        let mut field = bytes.get(..bytes.len().min(width)).unwrap_or_default().to_vec();
        field.resize(width, 0);
        field
    };
    let before = [
        text(&entry.name, NAME),
        digits((entry.mode & 0o7777).into(), 7),
        digits(entry.uid.into(), 7),
        digits(entry.gid.into(), 7),
        digits(entry.size, 11),
        digits(entry.mtime, 11),
    ]
    .concat();
    let after = [vec![kind], text(&entry.target, NAME), b"ustar\x0000".to_vec()].concat();
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    // The sum counts its own field as blanks.
    let sum = sum(&before).saturating_add(sum(&after)).saturating_add(8 * 0x20);
    let mut out = [before, format!("{sum:06o}\0 ").into_bytes(), after].concat();
    out.resize(BLOCK, 0);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::super::archive_read::Archive;
    use super::*;

    fn entry(kind: Kind, name: &[u8], target: &[u8]) -> Entry {
        let (name, target) = (name.to_vec(), target.to_vec());
        Entry { kind, name, target, mode: 0o4755, uid: 7, gid: 8, size: 0, mtime: 99 }
    }

    #[test]
    fn reads_what_it_writes() {
        let long = [b"a".repeat(200), b"/".to_vec(), b"\xff".repeat(90)].concat();
        let mut huge = entry(Kind::File, &long, b"");
        huge.size = 1 << 40;
        let mut owned = entry(Kind::Directory, b"d", b"");
        (owned.uid, owned.gid) = (1 << 30, 1 << 31);
        for wanted in [
            entry(Kind::File, b"x", b""),
            entry(Kind::Link, b"x", &b"t".repeat(101)),
            entry(Kind::Link, &b"n".repeat(100), b"t"),
            huge,
            owned,
        ] {
            let bytes = header(&wanted);
            assert_eq!(bytes.len() % BLOCK, 0);
            let found = Archive::new(bytes.as_slice()).next().unwrap().unwrap();
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
        }
    }

    #[test]
    fn counts_the_length_of_a_record_into_itself() {
        for (value, length) in [(1, "6 k=v"), (93, "99 k="), (94, "101 k="), (96, "103 k=")] {
            let mut out = Vec::new();
            record(&mut out, "k", &b"v".repeat(value));
            let told: usize = length.split(' ').next().unwrap().parse().unwrap();
            assert!(out.starts_with(length.as_bytes()), "{value}");
            assert_eq!(out.len(), told);
        }
    }
}
