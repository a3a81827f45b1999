//! The journal: one line for each thing asked of the log, before it can reach the disk, and for each
//! acknowledgement, as it comes. Kept where the log's disk cannot hurt it.
//!
//! ```text
//! B base crc first meta   what there was at the start: base index, last checksum, first index, meta value
//! H index term bytes crc  an entry there was at the start
//! A index term bytes crc  an entry appended        T from        entries cut
//! R next crc              a reset                  P first       trimmed at most so far
//! M number                a meta value written     E number      a meta value acknowledged
//! D index                 entries acknowledged
//! ```

use std::fmt::Write as _;
use std::path::Path;

use crate::common::model::{Appended, Change, Model};

/// Reads a journal; a last line without its end was never finished, and what it says never began.
pub(crate) fn load(path: &Path) -> Result<Model, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut model = Model::default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        take(&mut model, line)
            .ok_or_else(|| format!("line {} of the journal: {line}", number + 1))?;
    }
    Ok(model)
}

fn take(model: &mut Model, line: &str) -> Option<()> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    match (kind, numbers[..].as_ref()) {
        ("B", &[base, crc, first, meta]) => {
            model.start.base = base;
            model.start.base_crc = u32::try_from(crc).ok()?;
            model.first_index_max = first;
            (model.metas_before, model.meta_acknowledged) = (meta, meta);
        }
        ("H", numbers) => model.start.entries.push(entry(numbers)?),
        ("A", numbers) => model.changes.push(Change::Append(entry(numbers)?)),
        ("T", &[from]) => model.changes.push(Change::Truncate { from }),
        ("R", &[next_index, crc]) => model.changes.push(Change::Reset {
            next_index,
            crc: u32::try_from(crc).ok()?,
        }),
        ("P", &[first]) => model.first_index_max = model.first_index_max.max(first),
        ("M", &[number]) => {
            assert_eq!(number, model.meta_last() + 1, "meta values are numbered");
            model.metas.push(model.changes.len());
        }
        ("E", &[number]) => model.meta_acknowledged = model.meta_acknowledged.max(number),
        ("D", &[index]) => model.note_durable(index),
        _ => return None,
    }
    Some(())
}

fn entry(numbers: &[u64]) -> Option<Appended> {
    let &[index, term, bytes, crc] = numbers else {
        return None;
    };
    Some(Appended {
        index,
        term,
        bytes: bytes as usize,
        crc: u32::try_from(crc).ok()?,
    })
}

/// One line of an entry.
pub(crate) fn line(kind: char, entry: &Appended) -> String {
    let Appended {
        index,
        term,
        bytes,
        crc,
    } = entry;
    format!("{kind} {index} {term} {bytes} {crc}\n")
}

/// Writes a journal that begins with what `model` starts from.
pub(crate) fn store(path: &Path, model: &Model) -> Result<(), String> {
    let start = &model.start;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "B {} {} {} {}",
        start.base, start.base_crc, model.first_index_max, model.metas_before
    );
    for entry in &start.entries {
        text += &line('H', entry);
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
