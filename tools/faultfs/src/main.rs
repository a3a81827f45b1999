//! `faultfs DIRECTORY MOUNTPOINT RULES`: shows the files of a directory, without its subdirectories, and does to
//! operations on them what the rules say (`rules`). For checks of what a log does on a disk that fails, writes
//! less than it was given, and changes bits. Runs until it is unmounted; every fault is printed.

mod files;
mod rules;

use std::process::ExitCode;

use fuser::{Config, MountOption};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, mountpoint, rules] = arguments.as_slice() else {
        eprintln!("faultfs DIRECTORY MOUNTPOINT RULES");
        return ExitCode::from(2);
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("faultfs".to_owned())];
    let files = files::Files::new(directory.into(), rules::Rules::new(rules.into()));
    match fuser::mount(files, mountpoint, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot mount {mountpoint}: {error}");
            ExitCode::FAILURE
        }
    }
}
