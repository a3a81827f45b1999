//! What processes of this machine have used so far, from `/proc`.

use std::fs;

/// Processor time and memory of one process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// User and system time since its start, in ticks of the clock.
    pub ticks: u64,
    /// Resident memory, KiB.
    pub resident_kib: u64,
    /// The most that it ever was, KiB.
    pub peak_kib: u64,
}

impl Usage {
    /// Of a process now; none if it is gone or the kernel does not say.
    #[must_use]
    pub fn of(process_id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{process_id}/status")).ok()?;
        Some(Self {
            ticks: parse_ticks(&stat)?,
            resident_kib: parse_kib(&status, "VmRSS:")?,
            peak_kib: parse_kib(&status, "VmHWM:")?,
        })
    }

    /// Seconds of processor time since `earlier`.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

/// User and system ticks. The name, in parentheses, may hold anything, so that fields count from the last one.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn parse_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 40 2 13 14";
        assert_eq!(parse_ticks(stat), Some(42));
        assert_eq!(parse_ticks("7 (a) S 1 2"), None);
        assert_eq!(parse_ticks(""), None);
    }

    #[test]
    fn resident_memory_is_found() {
        let status = "Name: x\nVmHWM:\t  456 kB\nVmRSS:\t  123 kB\n";
        assert_eq!(parse_kib(status, "VmRSS:"), Some(123));
        assert_eq!(parse_kib(status, "VmHWM:"), Some(456));
        assert_eq!(parse_kib("VmRSS: many kB\n", "VmRSS:"), None);
        assert_eq!(parse_kib("", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 100, "{usage:?}");
        assert!(usage.peak_kib > 100, "{usage:?}");
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
