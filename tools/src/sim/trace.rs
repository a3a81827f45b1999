//! What happened, as a hash always and as lines on demand.

/// The run's hash, and its timeline if it was asked for.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps lines, or only the hash.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        Self {
            hash: 0xCBF2_9CE4_8422_2325,
            lines: lines.then(Vec::new),
        }
    }

    /// Takes note of numbers that tell one run from another.
    #[inline]
    pub fn note(&mut self, numbers: [u64; 4]) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.hash ^= self.hash >> 29;
        }
    }

    /// Adds a line to the timeline; the text is made only if there is one.
    #[inline]
    pub fn line(&mut self, now_us: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!(
                "{:>10}.{:03} {}",
                now_us / 1000,
                now_us % 1000,
                text()
            ));
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The timeline.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_numbers_matter() {
        let hash = |notes: &[[u64; 4]]| {
            let mut trace = Trace::new(false);
            notes.iter().for_each(|note| trace.note(*note));
            trace.hash()
        };
        let (a, b) = ([1, 2, 3, 4], [1, 2, 4, 3]);
        assert_eq!(hash(&[a, b]), hash(&[a, b]));
        assert_ne!(hash(&[a, b]), hash(&[b, a]));
        let mut trace = Trace::new(false);
        trace.line(0, || unreachable!("nobody asked for lines"));
    }
}
