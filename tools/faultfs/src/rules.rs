//! Which operation on which file goes wrong, when, and how.
//!
//! One rule a line, `#` begins a comment:
//!
//! ```text
//! OPERATION PREFIX WHEN ACTION
//! write     seg-   20   error 5        the 20th write to a file whose name begins so fails with errno 5
//! fsync     *      3+   error 28       every flush from the third on, of any file
//! write     seg-   7    short 512      512 bytes are written, and the caller is told so
//! write     seg-   7    flip 100       bit 0 of byte 100 of what is written changes on its way
//! read      seg-   1+   flip 4096      bit 0 of byte 4096 of the file is read wrong
//! ```
//!
//! Operations: `create`, `open`, `read`, `write`, `fsync`, `fsyncdir`, `fallocate`, `rename`, `unlink`. The
//! file is read again whenever it changes, and counting begins anew.

use std::path::PathBuf;
use std::time::SystemTime;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Error(i32),
    Short(usize),
    Flip(u64),
}

#[derive(Debug)]
struct Rule {
    operation: String,
    prefix: String,
    from: u64,
    to: u64,
    action: Action,
    seen: u64,
}

/// The rules of a file, as of its last change.
#[derive(Debug)]
pub(crate) struct Rules {
    path: PathBuf,
    changed: Option<SystemTime>,
    rules: Vec<Rule>,
}

impl Rules {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            changed: None,
            rules: Vec::new(),
        }
    }

    /// Counts an operation and says what becomes of it: the first rule whose turn it is.
    pub(crate) fn fate(&mut self, operation: &str, name: &str) -> Option<Action> {
        self.reload();
        let mut fate = None;
        for rule in &mut self.rules {
            if rule.operation == operation && name.starts_with(&rule.prefix) {
                rule.seen += 1;
                if (rule.from..rule.to).contains(&rule.seen) && fate.is_none() {
                    fate = Some(rule.action);
                }
            }
        }
        if let Some(action) = fate {
            println!("{operation} {name}: {action:?}");
        }
        fate
    }

    fn reload(&mut self) {
        let changed = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified());
        let Ok(changed) = changed else {
            return;
        };
        if self.changed == Some(changed) {
            return;
        }
        self.changed = Some(changed);
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        self.rules = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        {
            match parse(line) {
                Some(rule) => self.rules.push(rule),
                None => eprintln!("not a rule: {line}"),
            }
        }
    }
}

fn parse(line: &str) -> Option<Rule> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[operation, prefix, when, action, argument] = words.as_slice() else {
        return None;
    };
    let (from, to) = match when.strip_suffix('+') {
        Some(from) => (from.parse().ok()?, u64::MAX),
        None => {
            let at: u64 = when.parse().ok()?;
            (at, at + 1)
        }
    };
    let action = match action {
        "error" => Action::Error(argument.parse().ok()?),
        "short" => Action::Short(argument.parse().ok()?),
        "flip" => Action::Flip(argument.parse().ok()?),
        _ => return None,
    };
    Some(Rule {
        operation: operation.to_owned(),
        prefix: prefix.trim_end_matches('*').to_owned(),
        from,
        to,
        action,
        seen: 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rule_says_when_and_how() {
        let rule = parse("write seg- 7 short 512").unwrap();
        assert_eq!(
            (rule.from, rule.to, rule.action),
            (7, 8, Action::Short(512))
        );
        let rule = parse("fsync * 3+ error 28").unwrap();
        assert_eq!(
            (rule.from, rule.to, rule.action),
            (3, u64::MAX, Action::Error(28))
        );
        assert_eq!(rule.prefix, "");
        for line in [
            "write seg- 7 short",
            "write seg- x short 1",
            "write seg- 7 break 1",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
