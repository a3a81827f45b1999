//! Coverage marks: which rare branches were really taken, counted for the simulator's report.
//!
//! Written where the branch is, read by whoever reports; nothing decides by them. Without the feature
//! `marks` a mark is nothing.

#[cfg(feature = "marks")]
use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! marks {
    ($($name:ident $text:literal)*) => {
        /// A rare branch.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u16)]
        pub enum Mark {
            $(#[doc = $text] $name,)*
        }

        impl Mark {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [Mark] = &[$(Mark::$name,)*];

            /// What was done.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Mark::$name => $text,)* }
            }
        }
    };
}

marks! {
    JointLeftByNewLeader "a joint configuration was left by a leader that had not begun it"
}

#[cfg(feature = "marks")]
static COUNTS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

/// The branch is taken.
#[inline(always)]
pub fn mark(mark: Mark) {
    #[cfg(feature = "marks")]
    COUNTS[mark as usize].fetch_add(1, Ordering::Relaxed);
    #[cfg(not(feature = "marks"))]
    let _ = mark;
}

/// How often the branch was taken in this process.
#[cfg(feature = "marks")]
#[must_use]
pub fn count(mark: Mark) -> u64 {
    COUNTS[mark as usize].load(Ordering::Relaxed)
}
