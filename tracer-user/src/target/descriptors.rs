//! The file descriptors of a process: how many, how many there may be, and what they are.
//!
//! In: `/proc/PID`. Out: counts, and names that say what a descriptor is for, never whole lists.

use std::{collections::HashMap, fs};

use crate::event::Pid;

/// Descriptors that are named of one process: some ten milliseconds' work at most.
const NAMED: usize = 4096;
/// Different kinds of them that are told.
const KINDS: usize = 16;

/// How many descriptors a process has open, and its soft limit; `None` where it is gone or hidden.
#[must_use]
pub fn count(pid: Pid) -> Option<(u64, u64)> {
    let directory = format!("/proc/{pid}/fd");
    // From Linux 6.2 on the directory's size is their number.
    let open = match fs::metadata(&directory).ok()?.len() {
        0 => fs::read_dir(&directory).ok()?.count() as u64,
        open => open,
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    Some((open, limit(&limits)?))
}

/// `Max open files   1024   524288   files`; `unlimited` is no limit.
fn limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

/// What the descriptors of a process are, the most frequent first. `sockets` says what the sockets of
/// some inodes are.
#[must_use]
pub fn held(pid: Pid, sockets: &HashMap<u64, String>) -> Vec<(String, u64)> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .take(NAMED)
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned());
    grouped(links, sockets)
}

fn grouped(
    links: impl Iterator<Item = String>,
    sockets: &HashMap<u64, String>,
) -> Vec<(String, u64)> {
    let mut kinds: HashMap<String, (String, u64)> = HashMap::new();
    for link in links {
        let (kind, name) = name(&link, sockets);
        let told = kinds.entry(kind).or_insert_with_key(|_| (name.clone(), 0));
        if told.0 != name {
            // Several files of one directory are told by it.
            told.0 = format!("{}/…", parent(&told.0));
        }
        told.1 += 1;
    }
    let mut held: Vec<(String, u64)> = kinds.into_values().collect();
    held.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    held.truncate(KINDS);
    held
}

/// What is counted together, and what it is called.
fn name(link: &str, sockets: &HashMap<u64, String>) -> (String, String) {
    if let Some(inode) = inside(link, "socket:[") {
        let known = inode.parse().ok().and_then(|inode| sockets.get(&inode));
        let name = known.map_or("socket", String::as_str).to_owned();
        return (name.clone(), name);
    }
    if link.starts_with('/') {
        return (parent(link).to_owned(), format!("file {link}"));
    }
    let name = match inside(link, "anon_inode:[") {
        Some(name) => name,
        // `pipe:[1234]`, `anon_inode:inotify`
        None => link
            .strip_prefix("anon_inode:")
            .or_else(|| link.split_once(":[").map(|(kind, _)| kind))
            .unwrap_or(link),
    };
    (format!("\0{name}"), name.to_owned())
}

fn inside<'a>(link: &'a str, start: &str) -> Option<&'a str> {
    link.strip_prefix(start)?.strip_suffix(']')
}

/// The directory of a path, the root's files under the root.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(limit(limits), Some(1024));
        assert_eq!(
            limit("Max open files  unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(limit("Max cpu time  unlimited"), None);
    }

    #[test]
    fn our_own_descriptors_are_counted() {
        let pid = std::process::id();
        let (before, limit) = count(pid).expect("our own");
        assert!(before > 2 && limit > before);
        assert!(count(u32::MAX).is_none());
    }

    #[test]
    fn descriptors_are_told_by_kind_the_most_frequent_first() {
        let sockets = HashMap::from([
            (1, "TCP to 10.0.0.2:5432, ESTABLISHED".to_owned()),
            (2, "TCP to 10.0.0.2:5432, ESTABLISHED".to_owned()),
        ]);
        let links = [
            "socket:[1]",
            "socket:[9]",
            "socket:[2]",
            "pipe:[33]",
            "anon_inode:[eventpoll]",
            "/srv/data/a",
            "/srv/data/b",
            "/srv/data/c",
            "/dev/null",
            "/dev/null",
        ];
        let held = grouped(links.iter().map(|link| (*link).to_owned()), &sockets);
        let told: Vec<_> = held.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            told,
            [
                ("file /srv/data/…", 3),
                ("TCP to 10.0.0.2:5432, ESTABLISHED", 2),
                ("file /dev/null", 2),
                ("eventpoll", 1),
                ("pipe", 1),
                ("socket", 1),
            ]
        );
    }
}
