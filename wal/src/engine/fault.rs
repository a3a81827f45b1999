//! A switch that makes flushes slow, for tests of what stands above the log: a file says how.
//!
//! Only the posix engine has it, and only when [`crate::Options::fault_file`] names a file. A thread that
//! flushes reads that file before each flush and waits there, as it would for a slow disk:
//!
//! ```text
//! delay_us 100000     every flush takes so much longer
//! hang                no flush ends while the file says this
//! ```
//!
//! No file, or any other content, is no fault.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How often a flush that waits looks whether the file still says so.
const LOOK: Duration = Duration::from_millis(2);

/// What is to be done to a flush.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    Delay(Duration),
    Hang,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultSwitch {
    file: Option<PathBuf>,
}

impl FaultSwitch {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// Waits as long as the file wants; not at all without a file.
    pub(crate) fn before_flush(&self) {
        if self.file.is_none() {
            return;
        }
        let began = Instant::now();
        loop {
            match self.fault() {
                Fault::None => return,
                Fault::Delay(delay) => {
                    let Some(rest) = delay.checked_sub(began.elapsed()) else {
                        return;
                    };
                    thread::sleep(rest.min(LOOK));
                }
                Fault::Hang => thread::sleep(LOOK),
            }
        }
    }

    fn fault(&self) -> Fault {
        let text = self
            .file
            .as_ref()
            .and_then(|file| fs::read_to_string(file).ok());
        parse(text.as_deref().unwrap_or_default())
    }
}

fn parse(text: &str) -> Fault {
    let mut words = text.split_whitespace();
    match (words.next(), words.next().map(str::parse)) {
        (Some("delay_us"), Some(Ok(us))) => Fault::Delay(Duration::from_micros(us)),
        (Some("hang"), _) => Fault::Hang,
        _ => Fault::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_says() {
        assert_eq!(parse(""), Fault::None);
        assert_eq!(parse("delay_us"), Fault::None);
        assert_eq!(parse("delay_us x"), Fault::None);
        let delay = Fault::Delay(Duration::from_millis(100));
        assert_eq!(parse("delay_us 100000\n"), delay);
        assert_eq!(parse("hang\n"), Fault::Hang);
    }

    #[test]
    fn a_flush_waits_as_long_as_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fault");
        let switch = FaultSwitch::new(Some(file.clone()));
        switch.before_flush();
        fs::write(&file, "delay_us 20000").unwrap();
        let began = Instant::now();
        switch.before_flush();
        assert!(began.elapsed() >= Duration::from_millis(20));
        fs::write(&file, "hang").unwrap();
        let flush = thread::spawn(move || switch.before_flush());
        // However often it looks, it goes on only when the file is gone.
        fs::remove_file(&file).unwrap();
        flush.join().unwrap();
    }
}
