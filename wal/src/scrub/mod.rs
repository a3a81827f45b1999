//! Scrubbing: what is durable is read again from the medium, a piece at a time, while the log is in use, so that damage
//! is found while there still is another copy, and not when somebody needs the entry.
//!
//! [`crate::Wal::check_from`] hands out a segment to be checked; [`SegmentCheck::step`] checks a piece of it on any
//! thread, by the rules that recovery has. A check holds its file: the log does not use it again meanwhile, and may
//! remove it. [`Pace`] says when the next piece may be read, [`ScrubPosition`] keeps where it was over a restart. What
//! is done about damage, and when a pass begins, is the caller's.

mod check;
mod pace;
mod position;

pub(crate) use check::DurableEnd;
pub use check::{Checked, SegmentCheck};
pub use pace::Pace;
pub use position::ScrubPosition;
