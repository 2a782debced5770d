//! Tar archives, read: ustar, pax and GNU tar, as people pipe them in. What is none of these ends the errand.

use std::io::{Read, Write};

use super::archive::{BLOCK, Entry, Kind};
use super::{OrTrouble, Outcome, shown, trouble};

/// Bytes of a pax header or a long name.
const EXTRA_MAX: u64 = 65_536;
const CHUNK: usize = 65_536;

/// The entries of an archive, one after the other.
pub(super) struct Archive<R> {
    source: R,
    /// Bytes of the entry's body that were not read, and of what fills it up.
    body: u64,
    filling: u64,
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Extra {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub fn new(source: R) -> Self {
        Self { source, body: 0, filling: 0 }
    }

    /// The next entry; what is left of the one before is passed over. `None` at the archive's end.
    pub fn next(&mut self) -> Outcome<Option<Entry>> {
        let mut extra = Extra::default();
        loop {
            self.pass_over()?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let mut entry = entry_of(&block)?;
            let kind = block.get(156).copied().unwrap_or_default();
            self.open_body(entry.size);
            match kind {
                b'x' => extra.take(&self.text()?)?,
                // It speaks of all that follows; only a comment changes nothing.
                b'g' => drop(self.text()?),
                b'L' => extra.name = Some(until_nul(&self.text()?)),
                b'K' => extra.target = Some(until_nul(&self.text()?)),
                _ => {
                    entry.kind = kind_of(kind, &entry.name)?;
                    extra.put_on(&mut entry)?;
                    self.open_body(if entry.kind == Kind::File { entry.size } else { 0 });
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Writes the body of the entry that was read last.
    pub fn write_body(&mut self, to: &mut impl Write, name: &[u8]) -> Outcome<()> {
        let mut chunk = vec![0; CHUNK];
        while self.body > 0 {
            let most = usize::try_from(self.body).unwrap_or(CHUNK).min(CHUNK);
            let count = self
                .source
                .read(chunk.get_mut(..most).unwrap_or_default())
                .or_trouble("read the archive")?;
            if count == 0 {
                return trouble("the archive ends within a file");
            }
            self.body = self.body.saturating_sub(u64::try_from(count).unwrap_or(0));
            to.write_all(chunk.get(..count).unwrap_or_default())
                .or_trouble(format!("write {}", shown(name)))?;
        }
        Ok(())
    }

    /// Reads to the end of the source: whoever writes it is not cut off.
    pub fn finish(&mut self) -> Outcome<()> {
        std::io::copy(&mut self.source, &mut std::io::sink()).or_trouble("read the archive")?;
        Ok(())
    }

    fn open_body(&mut self, size: u64) {
        self.body = size;
        let block = u64::try_from(BLOCK).unwrap_or(1);
        self.filling =
            size.checked_next_multiple_of(block).map_or(0, |all| all.saturating_sub(size));
    }

    fn pass_over(&mut self) -> Outcome<()> {
        let left = self.body.saturating_add(self.filling);
        let passed =
            std::io::copy(&mut Read::by_ref(&mut self.source).take(left), &mut std::io::sink())
                .or_trouble("read the archive")?;
        (self.body, self.filling) = (0, 0);
        if passed == left { Ok(()) } else { trouble("the archive ends within an entry") }
    }

    fn block(&mut self) -> Outcome<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while let Some(rest) = block.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest).or_trouble("read the archive")? {
                0 if have == 0 => return Ok(None),
                0 => return trouble("the archive ends within a header"),
                count => have = have.saturating_add(count),
            }
        }
        Ok(Some(block))
    }

    /// The body, where that is a text about the next entry.
    fn text(&mut self) -> Outcome<Vec<u8>> {
        if self.body > EXTRA_MAX {
            return trouble("a header of the archive is too large");
        }
        let mut text = Vec::new();
        self.write_body(&mut text, b"a header")?;
        Ok(text)
    }
}

impl Extra {
    fn take(&mut self, mut rest: &[u8]) -> Outcome<()> {
        while !rest.is_empty() {
            let Some((key, value, after)) = record(rest) else {
                return trouble("a pax header of the archive is none");
            };
            rest = after;
            let number = || {
                let text = std::str::from_utf8(value).unwrap_or_default();
                // A time may have a fraction, or be before 1970.
                let whole = text.split('.').next().unwrap_or_default();
                if key == b"mtime" && whole.starts_with('-') {
                    return Ok(0);
                }
                whole.parse::<u64>().or_trouble("read a number of a pax header")
            };
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => self.mtime = Some(number()?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return trouble("sparse files of archives are not supported");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn put_on(self, entry: &mut Entry) -> Outcome<()> {
        let id = |number: u64| u32::try_from(number).or_trouble("use an owner of the archive");
        entry.name = self.name.unwrap_or(std::mem::take(&mut entry.name));
        entry.target = self.target.unwrap_or(std::mem::take(&mut entry.target));
        entry.size = self.size.unwrap_or(entry.size);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        entry.uid = self.uid.map_or(Ok(entry.uid), id)?;
        entry.gid = self.gid.map_or(Ok(entry.gid), id)?;
        if [&entry.name, &entry.target].iter().any(|text| text.contains(&0)) {
            return trouble("a name of the archive has a NUL byte");
        }
        Ok(())
    }
}

/// Key, value and what follows of a `length key=value\n`.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..blank)?).ok()?.parse().ok()?;
    let (whole, after) = bytes.split_at_checked(length)?;
    let text = whole.get(blank.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((text.get(..equals)?, text.get(equals.checked_add(1)?..)?, after))
}

fn kind_of(kind: u8, name: &[u8]) -> Outcome<Kind> {
    match kind {
        // Before ustar a directory was a file whose name ends so.
        0 | b'0' if name.ends_with(b"/") => Ok(Kind::Directory),
        0 | b'0' | b'7' => Ok(Kind::File),
        b'1' => Ok(Kind::HardLink),
        b'2' => Ok(Kind::Link),
        b'3' | b'4' | b'6' => Ok(Kind::Special),
        b'5' => Ok(Kind::Directory),
        _ => trouble(format!("{} of the archive is of a kind that is not supported", shown(name))),
    }
}

fn entry_of(block: &[u8; BLOCK]) -> Outcome<Entry> {
    let field =
        |from: usize, width: usize| block.get(from..from.saturating_add(width)).unwrap_or_default();
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = field(148, 8).iter().map(|byte| u64::from(*byte)).sum();
    let told = number(field(148, 8)).unwrap_or(0);
    if sum.saturating_sub(own).saturating_add(8 * 0x20) != told {
        return trouble("the archive is none, or is packed: only plain tar is taken");
    }
    let value = |from, width| number(field(from, width)).or_trouble("read a number of the archive");
    let id = |from| u32::try_from(value(from, 8)?).or_trouble("use an owner of the archive");
    let prefix =
        if field(257, 8) == b"ustar\x0000" { until_nul(field(345, 155)) } else { Vec::new() };
    let mut name = until_nul(field(0, 100));
    if !prefix.is_empty() {
        name = [prefix, b"/".to_vec(), name].concat();
    }
    Ok(Entry {
        kind: Kind::File,
        name,
        target: until_nul(field(157, 100)),
        mode: u32::try_from(value(100, 8)? & 0o7777).unwrap_or(0),
        uid: id(108)?,
        gid: id(116)?,
        size: value(124, 12)?,
        mtime: value(136, 12).unwrap_or(0),
    })
}

fn until_nul(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// Octal digits ended by NUL or blank, or GNU's binary number: a first byte 0x80, the rest big endian.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    const WRONG: &str = "it is none";
    if let [0x80, rest @ ..] = field {
        return rest.iter().try_fold(0_u64, |sum, byte| {
            sum.checked_mul(256).map(|sum| sum | u64::from(*byte)).ok_or(WRONG)
        });
    }
    let text = std::str::from_utf8(field).map_err(|_| WRONG)?;
    match text.trim_matches(['\0', ' ']) {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| WRONG),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::super::archive::header;
    use super::*;

    fn file(name: &[u8], size: u64) -> Vec<u8> {
        let (name, target) = (name.to_vec(), Vec::new());
        header(&Entry { kind: Kind::File, name, target, mode: 0, uid: 0, gid: 0, size, mtime: 0 })
    }

    #[test]
    fn takes_bodies_apart_and_passes_over_what_nobody_reads() {
        let mut bytes = file(b"a", 3);
        bytes.extend(b"abc");
        bytes.resize(1024, 0);
        bytes.extend(file(b"b", 0));
        bytes.resize(4096, 0);
        let mut archive = Archive::new(bytes.as_slice());
        assert_eq!(archive.next().unwrap().unwrap().name, b"a");
        let mut body = Vec::new();
        archive.write_body(&mut body, b"a").unwrap();
        assert_eq!(body, b"abc");
        assert_eq!(archive.next().unwrap().unwrap().name, b"b");
        assert!(archive.next().unwrap().is_none());
        let mut again = Archive::new(bytes.as_slice());
        assert_eq!(again.next().unwrap().unwrap().name, b"a");
        assert_eq!(again.next().unwrap().unwrap().name, b"b");
    }

    #[test]
    fn reads_the_long_names_of_gnu_tar() {
        let long = b"n".repeat(300);
        let mut head = file(b"././@LongLink", 301);
        *head.get_mut(156).unwrap() = b'L';
        let sum = u32::from(b'L') - u32::from(b'0');
        let told = number(head.get(148..156).unwrap()).unwrap() + u64::from(sum);
        head.splice(148..156, format!("{told:06o}\0 ").into_bytes());
        head.extend(&long);
        head.resize(1024, 0);
        head.extend(file(b"short", 0));
        assert_eq!(Archive::new(head.as_slice()).next().unwrap().unwrap().name, long);
    }

    #[test]
    fn refuses_what_is_no_archive_or_ends_early() {
        let whole = [file(b"a", 600), vec![7; 600]].concat();
        for bytes in
            [b"\x1f\x8b".repeat(300), b"short".to_vec(), whole.get(..700).unwrap().to_vec()]
        {
            let mut archive = Archive::new(bytes.as_slice());
            let read = archive.next().and_then(|_| archive.write_body(&mut Vec::new(), b"a"));
            assert!(read.and_then(|()| archive.next()).is_err());
        }
        let mut changed = file(b"a", 0);
        *changed.get_mut(3).unwrap() = 1;
        assert!(Archive::new(changed.as_slice()).next().is_err());
    }

    #[test]
    fn reads_binary_numbers_that_fit() {
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert!(number(&[0x80, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]).is_err());
        assert!(number(b"0000009\0").is_err());
        assert_eq!(number(b"        "), Ok(0));
    }
}
