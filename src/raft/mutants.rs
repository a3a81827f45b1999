//! Planted bugs, each a switch: evidence that tests and simulator find what they should.
//!
//! Without the feature `mutants`, which no product build has, [`is_planted`] is the constant `false` and
//! nothing of a planted bug is compiled in. With it, one bug at a time can be planted in the process.
//! It decides nothing and holds no protocol: the wrong branch stands where the right one is.

#[cfg(feature = "mutants")]
use core::sync::atomic::{AtomicU16, Ordering};

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
    CommitPriorTerm "commit-prior-term"
        "A leader commits entries of earlier terms by counting (Figure 8)."
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
