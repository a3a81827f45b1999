//! Log matching (thesis section 3.5): if two logs hold an entry of the same index and term, they are
//! identical up to it. The checksum of an entry chains all before it, so one number per index and term
//! says it all.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{Checked, View, require};

const NAME: &str = "log_matching_3_5";

/// A multiplicative hash for small whole numbers: the map is never iterated, so order cannot leak.
#[derive(Default)]
pub struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(31);
    }
}

/// What stands at each index and term, in any log, ever.
#[derive(Debug, Default)]
pub struct LogMatching {
    known: HashMap<(u64, u64), u32, BuildHasherDefault<Mixer>>,
}

impl LogMatching {
    /// Looks at what is new in a node's log.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(&mut self, view: &View<'_>) -> Checked {
        let shadow = view.shadow;
        let from = shadow.new_from.max(shadow.first_index());
        for index in from..=shadow.last_index() {
            let Some(entry) = shadow.get(index) else {
                continue;
            };
            let known = *self.known.entry((entry.term, index)).or_insert(entry.crc);
            require(known == entry.crc, NAME, || {
                format!(
                    "entry {index} of term {} is {:08x} at node {} and {known:08x} elsewhere",
                    entry.term,
                    entry.crc,
                    view.slot + 1
                )
            })?;
            let before = shadow.get(index - 1);
            require(
                before.is_none_or(|before| before.term <= entry.term),
                NAME,
                || format!("terms run backwards at {index} of node {}", view.slot + 1),
            )?;
        }
        // The core and the log agree on where it ends.
        let last = shadow.get(view.last.index);
        let agrees = view.last.index == shadow.last_index()
            && last.is_none_or(|entry| entry.term == view.last.term);
        require(agrees, NAME, || {
            format!(
                "node {}: the core's last entry is {}, the log's {}",
                view.slot + 1,
                view.last,
                shadow.last_index()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shadow, three, view};
    use super::*;

    #[test]
    fn two_entries_of_one_index_and_term_are_found() {
        let three = three();
        let mut checker = LogMatching::default();
        let (a, b, c) = (
            shadow(&[(1, 1), (1, 2)]),
            shadow(&[(1, 1), (2, 7)]),
            shadow(&[(1, 1), (1, 3)]),
        );
        assert!(checker.check(&view(&a, &three)).is_ok());
        assert!(checker.check(&view(&b, &three)).is_ok());
        assert!(checker.check(&view(&c, &three)).is_err());
        let mut short = view(&a, &three);
        short.last.index = 1;
        assert!(checker.check(&short).is_err());
        let backwards = shadow(&[(2, 9), (1, 4)]);
        assert!(checker.check(&view(&backwards, &three)).is_err());
    }
}
