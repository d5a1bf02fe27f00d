//! Everything below this process, found by parents. A process can leave its group and its session; it cannot leave its
//! ancestors, as long as one of them takes the orphans.

use std::{collections::BTreeMap, fs};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};

/// Sends a signal to every descendant of this process that is there now.
pub(super) fn signal_all(signal: Signal) {
    for pid in below(getpid().as_raw(), &parents()) {
        // It may have ended since.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The parent of each process.
fn parents() -> BTreeMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| Some((pid, parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// The parent in a `stat` of `/proc`. The name before it may hold anything, also parentheses and blanks.
fn parent(stat: &str) -> Option<i32> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(1)?.parse().ok()
}

/// Everything below a process, parents before their children.
fn below(root: i32, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_stands_behind_a_name_that_may_hold_anything() {
        assert_eq!(parent("12 (sh) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (a) R 1 (b) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (sh"), None);
    }

    #[test]
    fn children_of_children_are_found_and_nobody_else() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 2)]);
        assert_eq!(below(2, &parents), [3, 6, 4]);
        assert_eq!(below(4, &parents), [0; 0]);
    }
}
