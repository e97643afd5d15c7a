//! Who a program runs as: `user[:group]` to ids, from /etc/passwd and /etc/group.
//!
//! The agent reads these files itself: glibc's NSS can't be linked statically. Root is refused, by uid and
//! by gid and under whatever name, as the contract demands.

use std::fs;
use std::io;

use creel_proto::names::DEFAULT_USER;

/// All ones means "leave as it is" to setresuid(2): taken for an id, it would leave a program root.
const NO_ID: u32 = u32::MAX;

const NO_SHELL: &str = "/bin/sh";
const NO_HOME: &str = "/";

/// A resolved user, never root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// All groups, `gid` among them, gid 0 never.
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("failed to read `{path}`")]
    Read { path: &'static str, source: io::Error },
    #[error("`{0}` is not a user; the form is user[:group]")]
    Malformed(String),
    #[error("user `{0}` is not in the guest's /etc/passwd")]
    NoUser(String),
    #[error("group `{0}` is not in the guest's /etc/group")]
    NoGroup(String),
    #[error("user {0} is not in the guest's /etc/passwd, so its group must be named: {0}:GROUP")]
    NoPrimaryGroup(u32),
    #[error(
        "running as `{request}` is refused: it means uid {uid} and gid {gid}, and steps never run as root"
    )]
    Root { request: String, uid: u32, gid: u32 },
    #[error("`{0}` is not a usable id")]
    InvalidId(String),
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

#[derive(Debug, Clone)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The guest's accounts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads them anew: a step may have added a user. A file that does not exist is an empty one.
    pub fn read() -> Result<Self, UserError> {
        let read = |path| match fs::read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(UserError::Read { path, source }),
        };
        Ok(Self::parse(&read("/etc/passwd")?, &read("/etc/group")?))
    }

    /// passwd(5) and group(5). Lines that don't parse are passed over, as glibc does.
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
        }
    }

    /// `user[:group]`, each a name or a number, names first; empty means `spindle-workflow`.
    pub fn resolve(&self, request: &str) -> Result<Identity, UserError> {
        let request = if request.is_empty() { DEFAULT_USER } else { request };
        let (user, group) = match request.split_once(':') {
            Some((user, group)) if user.is_empty() || group.is_empty() || group.contains(':') => {
                return Err(UserError::Malformed(format!("{user}:{group}")));
            }
            Some((user, group)) => (user, Some(group)),
            None => (request, None),
        };
        let known = self.users.iter().find(|known| known.name == user);
        let (uid, known) = match known {
            Some(known) => (known.uid, Some(known)),
            None => {
                let uid = user.parse().map_err(|_| UserError::NoUser(user.to_owned()))?;
                (uid, self.users.iter().find(|known| known.uid == uid))
            }
        };
        let gid = match (group, known) {
            (Some(group), _) => self.gid(group)?,
            (None, Some(known)) => known.gid,
            (None, None) if uid == 0 => 0,
            (None, None) => return Err(UserError::NoPrimaryGroup(uid)),
        };
        if uid == 0 || gid == 0 {
            return Err(UserError::Root { request: request.to_owned(), uid, gid });
        }
        if uid == NO_ID || gid == NO_ID {
            return Err(UserError::InvalidId(request.to_owned()));
        }
        let mut groups = vec![gid];
        if let Some(known) = known {
            let member = |group: &&Group| group.members.contains(&known.name);
            groups.extend(self.groups.iter().filter(member).map(|group| group.gid));
        }
        groups.retain(|&group| group != 0 && group != NO_ID);
        groups.sort_unstable();
        groups.dedup();
        Ok(Identity {
            name: known.map_or_else(|| user.to_owned(), |known| known.name.clone()),
            uid,
            gid,
            groups,
            home: known.map_or(NO_HOME, |known| &known.home).to_owned(),
            shell: known.map_or(NO_SHELL, |known| &known.shell).to_owned(),
        })
    }

    fn gid(&self, group: &str) -> Result<u32, UserError> {
        match self.groups.iter().find(|known| known.name == group) {
            Some(known) => Ok(known.gid),
            None => group.parse().map_err(|_| UserError::NoGroup(group.to_owned())),
        }
    }
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let _comment = fields.next()?;
    let field =
        |text: Option<&str>, default: &str| text.filter(|t| !t.is_empty()).unwrap_or(default).to_owned();
    let home = field(fields.next(), NO_HOME);
    let shell = field(fields.next(), NO_SHELL);
    Some(User { name, uid, gid, home, shell })
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let _password = fields.next()?;
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty());
    Some(Group { name, gid, members: members.map(str::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
toor:x:0:100::/root:/bin/sh
wheelie:x:5:0::/:/bin/sh
spindle-workflow:x:970:970::/workspace:/bin/bash
1000:x:1234:1234::/home/odd:
broken:x:many:1::/:/bin/sh
last:x:4294967295:1::/:/bin/sh
";
    const GROUP: &str = "\
root:x:0:spindle-workflow
docker:x:999:other,spindle-workflow
spindle-workflow:x:970:
other:x:100:
";

    fn resolve(request: &str) -> Result<Identity, String> {
        Accounts::parse(PASSWD, GROUP).resolve(request).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_named_means_the_workflow_user_with_its_groups() {
        let identity = resolve("").unwrap();
        assert_eq!(identity, resolve("spindle-workflow").unwrap());
        assert_eq!(identity, resolve("970").unwrap());
        assert_eq!((identity.uid, identity.gid), (970, 970));
        assert_eq!(identity.groups, [970, 999]);
        assert_eq!((&*identity.home, &*identity.shell), ("/workspace", "/bin/bash"));
    }

    #[test]
    fn a_group_may_be_named_or_numbered() {
        assert_eq!(resolve("spindle-workflow:docker").unwrap().gid, 999);
        assert_eq!(resolve("970:100").unwrap().groups, [100, 999]);
        assert_eq!(resolve("4000:4001").unwrap().groups, [4001]);
    }

    #[test]
    fn a_name_goes_before_the_number_it_looks_like() {
        let identity = resolve("1000").unwrap();
        assert_eq!(identity.uid, 1234);
        assert_eq!(identity.shell, "/bin/sh");
    }

    #[test]
    fn root_is_refused_under_any_name() {
        for request in
            ["root", "0", "0:0", "0:970", "970:0", "toor", "wheelie", "spindle-workflow:root", "00"]
        {
            assert!(resolve(request).is_err_and(|error| error.contains("never run as root")), "{request}");
        }
    }

    #[test]
    fn the_id_that_means_no_change_is_refused() {
        for request in ["4294967295:1", "970:4294967295", "last"] {
            assert!(resolve(request).is_err_and(|error| error.contains("not a usable id")), "{request}");
        }
    }

    #[test]
    fn who_does_not_exist_is_named() {
        assert_eq!(resolve("ghost"), Err("user `ghost` is not in the guest's /etc/passwd".into()));
        assert_eq!(resolve("broken"), Err("user `broken` is not in the guest's /etc/passwd".into()));
        assert_eq!(resolve("970:ghosts"), Err("group `ghosts` is not in the guest's /etc/group".into()));
        assert!(resolve("4000").is_err_and(|error| error.contains("4000:GROUP")));
        for request in [":", "970:", ":970", "a:b:c"] {
            assert!(resolve(request).is_err_and(|error| error.contains("user[:group]")), "{request}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_files_say_nobody_becomes_root(
            passwd in "([a-z]{0,3}:x:[0-3]{1,2}:[0-3]{1,2}:::[/a-z:]{0,4}\n){0,5}",
            group in "([a-z]{0,3}:x:[0-3]{1,2}:[a-z,]{0,6}\n){0,5}",
            request in "[a-z0-3]{0,3}(:[a-z0-3]{0,3})?",
        ) {
            if let Ok(identity) = Accounts::parse(&passwd, &group).resolve(&request) {
                prop_assert!(identity.uid != 0 && identity.gid != 0);
                prop_assert!(!identity.groups.contains(&0));
                prop_assert!(identity.groups.contains(&identity.gid));
            }
        }

        #[test]
        fn any_text_is_taken_without_panic(passwd in any::<String>(), group in any::<String>(), user in any::<String>()) {
            let _ = Accounts::parse(&passwd, &group).resolve(&user);
        }
    }
}
