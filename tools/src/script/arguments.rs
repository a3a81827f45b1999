//! The words of one line, taken from left to right, each with a name for the error message.

use drave::raft::NodeId;

use super::fault::Fault;

/// The words of a command line.
pub(super) struct Arguments {
    words: Vec<String>,
    next: usize,
}

impl Arguments {
    /// Splits a line at blanks; what is in double quotes is one word, a word `#` begins a comment.
    pub(super) fn parse(line: &str) -> Result<Arguments, Fault> {
        let mut words = Vec::new();
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let Some((word, after)) = quoted.split_once('"') else {
                    return Err(Fault::script("a quote is not closed"));
                };
                words.push(word.to_owned());
                rest = after.trim_start();
                continue;
            }
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word == "#" {
                break;
            }
            words.push(word.to_owned());
            rest = after.trim_start();
        }
        Ok(Arguments { words, next: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next == self.words.len()
    }

    pub(super) fn peek(&self) -> Option<&str> {
        self.words.get(self.next).map(String::as_str)
    }

    pub(super) fn take(&mut self) -> Option<String> {
        let word = self.words.get(self.next).cloned()?;
        self.next += 1;
        Some(word)
    }

    pub(super) fn word(&mut self, what: &str) -> Result<String, Fault> {
        self.take()
            .ok_or_else(|| Fault::script(format!("{what} is missing")))
    }

    /// Takes the next word if it is this one.
    pub(super) fn keyword(&mut self, keyword: &str) -> bool {
        let is_there = self.peek() == Some(keyword);
        if is_there {
            self.next += 1;
        }
        is_there
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u64, Fault> {
        let word = self.word(what)?;
        parse_number(&word, what)
    }

    pub(super) fn node(&mut self) -> Result<NodeId, Fault> {
        self.number("a node").map(NodeId)
    }

    /// All numbers up to the next word that is none.
    pub(super) fn nodes(&mut self) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        while let Some(Ok(number)) = self.peek().map(str::parse) {
            nodes.push(NodeId(number));
            self.next += 1;
        }
        nodes
    }

    /// `500ms`, `2s` or `30us`, in microseconds.
    pub(super) fn duration_us(&mut self) -> Result<u64, Fault> {
        let word = self.word("a duration")?;
        let units = [("ms", 1_000), ("us", 1), ("s", 1_000_000)];
        for (unit, factor) in units {
            if let Some(number) = word.strip_suffix(unit) {
                return Ok(parse_number(number, "a duration")?.saturating_mul(factor));
            }
        }
        Err(Fault::script(format!(
            "a duration is a number and us, ms or s, found {word}"
        )))
    }

    /// No more words may follow.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(Fault::script(format!("{word} is not understood here"))),
        }
    }
}

pub(super) fn parse_number(word: &str, what: &str) -> Result<u64, Fault> {
    word.parse()
        .map_err(|_| Fault::script(format!("{what} is a number, found {word:?}")))
}
