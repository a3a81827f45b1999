//! A window of bytes that one side grants and the other spends.
//!
//! Bookkeeping only: it sends nothing. The granting side says how much it can take; the spending side
//! takes before it sends, and what does not fit waits with its source.

/// Bytes that may still be sent. Never negative, never above its limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreditWindow {
    available: u64,
    limit: u64,
}

impl CreditWindow {
    /// An empty window that holds at most `limit` bytes of credit, however much is granted: the other
    /// side's number is not trusted further than that.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            available: 0,
            limit,
        }
    }

    /// A window that begins full.
    #[must_use]
    pub fn full(limit: u64) -> Self {
        Self {
            available: limit,
            limit,
        }
    }

    /// Adds credit up to the limit, and gives how much was added.
    pub fn grant(&mut self, bytes: u64) -> u64 {
        let added = bytes.min(self.limit - self.available);
        self.available += added;
        added
    }

    /// Spends `bytes`, or nothing when fewer are available.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> bool {
        match self.available.checked_sub(bytes) {
            Some(rest) => {
                self.available = rest;
                true
            }
            None => false,
        }
    }

    /// Spends up to `bytes`, and gives how many: for a piece that must pass even when it is larger than
    /// the window, once some of the window is open.
    pub fn take_up_to(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min(self.available);
        self.available -= taken;
        taken
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.available
    }

    /// Bytes of credit held at most.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_window_is_what_was_granted_less_what_was_taken(
            limit in 0u64..1000,
            steps in proptest::collection::vec((any::<bool>(), 0u64..2000), 0..64),
        ) {
            let mut window = CreditWindow::new(limit);
            let mut model = 0u64;
            for (grant, bytes) in steps {
                if grant {
                    let added = window.grant(bytes);
                    model += added;
                    prop_assert!(added <= bytes);
                    prop_assert!(added == bytes || model == limit);
                } else if window.take(bytes) {
                    prop_assert!(model >= bytes);
                    model -= bytes;
                } else {
                    prop_assert!(model < bytes);
                    prop_assert_eq!(window.take_up_to(bytes), model);
                    model = 0;
                }
                prop_assert_eq!(window.available(), model);
                prop_assert!(model <= limit);
            }
        }
    }

    #[test]
    fn the_greatest_grant_does_not_overflow() {
        let mut window = CreditWindow::full(u64::MAX);
        assert_eq!(window.grant(u64::MAX), 0);
        assert!(window.take(u64::MAX));
        assert!(!window.take(1));
        assert_eq!(window.grant(u64::MAX), u64::MAX);
    }
}
