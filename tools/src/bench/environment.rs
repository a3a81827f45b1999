//! What machine and file system the figures are of.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};
use serde::Serialize;

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// System, release, machine.
    pub kernel: String,
    /// Processors this process may use.
    pub processors: usize,
    /// Where the files are.
    pub directory: String,
    /// Type of its file system.
    pub file_system: String,
    /// What is mounted there.
    pub device: String,
    /// Alignment that `O_DIRECT` wants of memory and of offsets, as `statx` says it; 0 if it does not say.
    pub direct_memory_bytes: u32,
    /// See above.
    pub direct_offset_bytes: u32,
}

impl Environment {
    /// Of the directory, and of `file` in it for the alignment.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn of(directory: &Path, file: &Path) -> io::Result<Self> {
        let name = rustix::system::uname();
        let directory = directory.canonicalize()?;
        let (file_system, device) = mount_of(&directory);
        let stat = rustix::fs::statx(
            rustix::fs::CWD,
            file,
            AtFlags::empty(),
            StatxFlags::DIOALIGN,
        )?;
        let told = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
        Ok(Self {
            kernel: format!(
                "{} {} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy(),
                name.machine().to_string_lossy()
            ),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            directory: directory.display().to_string(),
            file_system,
            device,
            direct_memory_bytes: if told { stat.stx_dio_mem_align } else { 0 },
            direct_offset_bytes: if told { stat.stx_dio_offset_align } else { 0 },
        })
    }
}

/// Type and device of the mount that `directory` is on; `unknown` where the kernel does not say.
fn mount_of(directory: &Path) -> (String, String) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().filter_map(parse_mount);
    let inside = found.filter(|(point, _, _)| directory.starts_with(point));
    // Of mounts on the same place the last one is on top.
    let longest = inside.max_by_key(|(point, _, _)| point.len());
    longest.map_or_else(
        || ("unknown".to_owned(), "unknown".to_owned()),
        |(_, kind, device)| (kind.to_owned(), device.to_owned()),
    )
}

/// Mount point, type and device of a line of `mountinfo`.
fn parse_mount(line: &str) -> Option<(&str, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    Some((point, right.next()?, right.next()?))
}

/// Processor time of the whole machine so far: busy ticks and all ticks.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    /// Now; none where the kernel does not say.
    #[must_use]
    pub fn now() -> Option<Self> {
        parse_ticks(fs::read_to_string("/proc/stat").ok()?.lines().next()?)
    }

    /// Percent of the machine's processor time since `earlier` that was busy.
    #[must_use]
    pub fn busy_percent_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        100.0 * self.busy.saturating_sub(earlier.busy) as f64 / all as f64
    }
}

/// The first line of `/proc/stat`: user, nice, system, idle, waiting for I/O, and so on.
fn parse_ticks(line: &str) -> Option<Ticks> {
    let numbers: Vec<u64> = line
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map(|word| word.parse().ok())
        .collect::<Option<_>>()?;
    let all = numbers.iter().sum();
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some(Ticks {
        busy: all - idle,
        all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_understood() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/root rw,errors=continue";
        assert_eq!(parse_mount(line), Some(("/mnt2", "ext4", "/dev/root")));
        assert_eq!(parse_mount("36 35 98:0"), None);
        assert_eq!(parse_mount("a - b"), None);
    }

    #[test]
    fn processor_ticks_are_understood() {
        let ticks = |line| parse_ticks(line).map(|ticks| (ticks.busy, ticks.all));
        assert_eq!(ticks("cpu  1 2 3 100 50 4 5 6 7 8"), Some((21, 171)));
        assert_eq!(ticks("cpu  1 2 x 100"), None);
        assert_eq!(ticks("cpu0 1 2 3 4 5"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_machine_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        let found = Environment::of(dir.path(), &file).unwrap();
        assert!(found.kernel.starts_with("Linux "), "{}", found.kernel);
        assert!(found.processors > 0);
        assert_ne!(found.file_system, "unknown");
    }
}
