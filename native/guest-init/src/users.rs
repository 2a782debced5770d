//! Who the app runs as: the user string of the image against the image's own passwd and group.
//!
//! Numbers are refused from 2^31 on: in containerd larger ones wrapped round to root
//! (CVE-2024-40635). A string of digits is a number and never a name.

use std::fmt;

/// Largest user or group number an image may ask for.
pub const ID_MAX: u32 = 2_147_483_647;
/// Most bytes that are read of the image's passwd or group file.
pub const DATABASE_BYTES_MAX: usize = 1_048_576;

/// Who the app runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Primary group number.
    pub gid: u32,
    /// Supplementary groups by the group file; none when the user string names a group.
    pub groups: Vec<u32>,
    /// The home directory by the passwd file; `/` without one.
    pub home: String,
}

/// Why a user string names nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserError {
    /// The number is above [`ID_MAX`].
    Number(String),
    /// Neither a number nor a user in the image's passwd.
    NoUser(String),
    /// Neither a number nor a group in the image's group file.
    NoGroup(String),
}

impl fmt::Display for UserError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(text) => write!(out, "user or group number {text} is above {ID_MAX}"),
            Self::NoUser(name) => write!(out, "user {name:?} is not in the image's /etc/passwd"),
            Self::NoGroup(name) => write!(out, "group {name:?} is not in the image's /etc/group"),
        }
    }
}

impl std::error::Error for UserError {}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds out who `user` is: empty (root), `uid`, `name`, and each with `:gid` or `:group`.
/// Lines of the databases that are not well formed count as absent.
///
/// # Errors
/// [`UserError`] for a name that is not there and for a number that is too large.
pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let account = accounts(passwd).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let (uid, own_gid, home) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, account.home),
        (None, Some(uid)) => (uid, 0, "/"),
        (None, None) => return Err(UserError::NoUser(user.into())),
    };
    let home = if home.starts_with('/') { home } else { "/" }.to_owned();
    if let Some(wanted) = wanted_group {
        return Ok(Identity { uid, gid: group_number(wanted, group)?, groups: Vec::new(), home });
    }
    let groups = account.map_or_else(Vec::new, |account| {
        groups(group)
            .filter(|group| group.members.split(',').any(|member| member == account.name))
            .map(|group| group.gid)
            .collect()
    });
    Ok(Identity { uid, gid: own_gid, groups, home })
}

fn group_number(wanted: &str, database: &str) -> Result<u32, UserError> {
    if let Some(gid) = number(wanted)? {
        return Ok(gid);
    }
    groups(database)
        .find(|group| group.name == wanted)
        .map(|group| group.gid)
        .ok_or_else(|| UserError::NoGroup(wanted.into()))
}

/// `Some` for a string of digits; signs, spaces and other bases are no number.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= ID_MAX);
    number.map(Some).ok_or_else(|| UserError::Number(text.into()))
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (number(fields.next()?).ok()??, number(fields.next()?).ok()??);
        let (_comment, home) = (fields.next()?, fields.next()?);
        (!name.is_empty()).then_some(Account { name, uid, gid, home })
    })
}

fn groups(database: &str) -> impl Iterator<Item = Group<'_>> {
    database.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = number(fields.next()?).ok()??;
        let members = fields.next()?;
        (!name.is_empty()).then_some(Group { name, gid, members })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        huge:x:4294967295:0::/:\n\
        web:x:33:34:,,,:/var/www:/bin/sh\n\
        1000:x:7:7::/seven:/bin/sh\n\
        odd:x:50:50::relative:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\ntape:x:26:other,web\nbad:x:-1:web\nlog:x:27:web\n";

    fn found(user: &str) -> (u32, u32, Vec<u32>, String) {
        let identity = resolve(user, PASSWD, GROUP).unwrap();
        (identity.uid, identity.gid, identity.groups, identity.home)
    }

    #[test]
    fn finds_every_form_of_user() {
        assert_eq!(found(""), (0, 0, vec![], "/root".into()));
        assert_eq!(found("web"), (33, 34, vec![26, 27], "/var/www".into()));
        assert_eq!(found("33"), (33, 34, vec![26, 27], "/var/www".into()));
        assert_eq!(found("web:tape"), (33, 26, vec![], "/var/www".into()));
        assert_eq!(found("web:5"), (33, 5, vec![], "/var/www".into()));
        assert_eq!(found("4711"), (4711, 0, vec![], "/".into()));
        assert_eq!(found("4711:12"), (4711, 12, vec![], "/".into()));
        assert_eq!(found(":log"), (0, 27, vec![], "/root".into()));
        assert_eq!(found("web:"), (33, 34, vec![26, 27], "/var/www".into()));
    }

    #[test]
    fn takes_digits_for_a_number_and_never_for_a_name() {
        assert_eq!(found("1000"), (1000, 0, vec![], "/".into()));
    }

    #[test]
    fn never_takes_a_relative_home() {
        assert_eq!(found("odd").3, "/");
    }

    #[test]
    fn refuses_numbers_that_would_wrap_round() {
        for user in
            ["2147483648", "4294967295", "4294967296", "99999999999999999999", "0:4294967296"]
        {
            assert!(matches!(resolve(user, PASSWD, GROUP), Err(UserError::Number(_))), "{user}");
        }
        assert_eq!(found("2147483647").0, ID_MAX);
    }

    #[test]
    fn refuses_names_that_are_not_there() {
        for user in ["nobody", "-1", "+0", " 0", "0x0", "huge", "broken line", "web "] {
            assert_eq!(resolve(user, PASSWD, GROUP), Err(UserError::NoUser(user.into())), "{user}");
        }
        for group in ["none", "bad", "-1"] {
            let user = format!("web:{group}");
            assert_eq!(resolve(&user, PASSWD, GROUP), Err(UserError::NoGroup(group.into())));
        }
        assert!(resolve("web", "", "").is_err());
    }
}
