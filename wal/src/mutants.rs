//! Planted bugs, each a switch: evidence that tests and simulator find what they should.
//!
//! Without the feature `mutants`, which no product build has, [`is_planted`] is the constant `false` and
//! nothing of a planted bug is compiled in. With it, one bug at a time can be planted in the process.

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicU16, Ordering};

macro_rules! mutants {
    ($($name:ident $text:literal $description:literal)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u16)]
        pub enum Mutant {
            $(#[doc = $description] $name,)*
        }

        impl Mutant {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$name => $text,)* }
            }

            /// What is wrong with it.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Mutant::$name => $description,)* }
            }
        }
    };
}

mutants! {
    SealNotAwaited "wal-seal-not-awaited"
        "A segment is left before its last groups and its seal are durable."
    MetaAfterEntries "wal-meta-after-entries"
        "Entries are written before the meta value that they depend on is durable."
    TornTailAppended "wal-torn-tail-appended"
        "After a torn write the log goes on behind the torn bytes in the same segment."
    FlushReportedEarly "wal-flush-reported-early"
        "A group counts as durable when it is submitted."
    FlushOutOfOrder "wal-flush-out-of-order"
        "A completed group makes everything before it durable, completed or not."
    TruncationNotFenced "wal-truncation-not-fenced"
        "A flush begun before a truncation makes what replaced its entries durable."
    MetaReportedEarly "wal-meta-reported-early"
        "A meta value counts as durable when its write is submitted."
    RetireBeforeMeta "wal-retire-before-meta"
        "A segment is retired before the meta record that no longer names it is durable."
    TrimBehindCut "wal-trim-behind-cut"
        "A segment is retired though the term before the next one's cut is only in it."
    FailureIgnored "wal-failure-ignored"
        "A failed write counts as one that succeeded."
}

#[cfg(feature = "mutants")]
static PLANTED: AtomicU16 = AtomicU16::new(u16::MAX);

/// Plants one bug in this process, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.store(mutant.map_or(u16::MAX, |m| m as u16), Ordering::Relaxed);
}

/// Whether this bug is planted.
#[inline(always)]
#[must_use]
pub fn is_planted(mutant: Mutant) -> bool {
    #[cfg(feature = "mutants")]
    {
        PLANTED.load(Ordering::Relaxed) == mutant as u16
    }
    #[cfg(not(feature = "mutants"))]
    {
        let _ = mutant;
        false
    }
}
