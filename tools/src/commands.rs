//! The commands, one file each.

pub mod append;
pub mod bench;
pub mod chaos;
pub mod demo;
pub mod describe;
pub mod dev;
pub mod ending;
pub mod explain;
pub mod fence;
pub mod format;
pub mod history;
mod latency;
pub mod leader;
pub mod log;
pub mod member;
pub mod read;
pub mod sim;
pub mod start;
pub mod status;
pub mod tail;
pub mod together;
pub mod wal;
