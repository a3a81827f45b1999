use proptest::prelude::*;

use super::*;

const LIMIT: usize = 12;

/// The definition, straight: split at newlines, nothing after the last one is no line.
fn lines_by_definition(input: &[u8]) -> Vec<Line> {
    let mut parts: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    if parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    parts
        .into_iter()
        .map(|part| {
            if part.len() > LIMIT {
                Line::TooLong {
                    bytes: part.len() as u64,
                }
            } else {
                Line::Record(Bytes::copy_from_slice(part))
            }
        })
        .collect()
}

fn split(blocks: &[Vec<u8>]) -> Vec<Line> {
    let mut splitter = LineSplitter::new(LIMIT);
    let mut lines = Vec::new();
    for block in blocks {
        splitter.push(&Bytes::copy_from_slice(block), |line| lines.push(line));
        assert!(
            splitter.carry.len() <= LIMIT,
            "no more than a record is held"
        );
    }
    lines.extend(splitter.finish());
    assert_eq!(splitter.finish(), None);
    lines
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(b'\n'), 8 => Just(b'a'), 1 => Just(b'\r'), 1 => any::<u8>()];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    #[test]
    fn any_cutting_into_blocks_gives_the_same_lines(
        input in input(),
        cuts in prop::collection::vec(0_usize..200, 0..8),
    ) {
        let mut places: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        places.extend([0, input.len()]);
        places.sort_unstable();
        let blocks: Vec<Vec<u8>> = places.windows(2).map(|pair| input[pair[0]..pair[1]].to_vec()).collect();
        prop_assert_eq!(split(&blocks), lines_by_definition(&input));
    }

    #[test]
    fn newlines_are_found_like_by_a_plain_scan(bytes in input()) {
        prop_assert_eq!(newline(&bytes), bytes.iter().position(|byte| *byte == b'\n'));
    }

    #[test]
    fn batches_hold_every_line_once_in_order(input in input(), records_max in prop::option::of(1_u32..7)) {
        let lines = lines_by_definition(&input);
        let mut batcher = Batcher::new(records_max);
        let mut cuts = Vec::new();
        for line in lines.clone() {
            batcher.push(line, &mut cuts);
        }
        cuts.extend(batcher.cut());
        let mut found = Vec::new();
        for cut in cuts {
            match cut {
                Cut::Batch(batch) => {
                    prop_assert_eq!(batch.lines.start, found.len() as u64 + 1);
                    prop_assert_eq!(batch.lines.end - batch.lines.start, batch.records.len() as u64);
                    prop_assert!(batch.records.len() <= records_max.unwrap_or(u32::MAX) as usize);
                    found.extend(batch.records.into_iter().map(Line::Record));
                }
                Cut::TooLong(long) => {
                    prop_assert_eq!(long.line, found.len() as u64 + 1);
                    found.push(Line::TooLong { bytes: long.bytes });
                }
            }
        }
        prop_assert_eq!(batcher.lines_taken(), lines.len() as u64);
        prop_assert_eq!(found, lines);
    }
}

#[test]
fn the_edges_of_lines() {
    assert_eq!(split(&[b"".to_vec()]), []);
    assert_eq!(split(&[b"\n".to_vec()]), [Line::Record(Bytes::new())]);
    assert_eq!(split(&[b"a".to_vec()]), [Line::Record("a".into())]);
    assert_eq!(split(&[b"a\r\n".to_vec()]), [Line::Record("a\r".into())]);
    let (full, over) = (vec![b'x'; LIMIT], vec![b'x'; LIMIT + 1]);
    assert_eq!(
        split(&[full.clone(), b"\n".to_vec()]),
        [Line::Record(full.into())]
    );
    let found = split(&[over, b"xx\nb\n".to_vec()]);
    assert_eq!(
        found,
        [
            Line::TooLong {
                bytes: LIMIT as u64 + 3
            },
            Line::Record("b".into())
        ]
    );
}

#[test]
fn lines_inside_a_block_are_not_copied() {
    let block = Bytes::from_static(b"first\nsecond\n");
    let mut splitter = LineSplitter::new(LIMIT);
    let mut places = Vec::new();
    splitter.push(&block, |line| {
        if let Line::Record(record) = line {
            places.push(record.as_ptr() as usize - block.as_ptr() as usize);
        }
    });
    assert_eq!(places, [0, 6]);
}

#[test]
fn batches_are_cut_by_bytes() {
    let big = Bytes::from(vec![b'x'; AUTO_BATCH_BYTES / 2 + 1]);
    let huge = Bytes::from(vec![b'x'; BATCH_BYTES_MAX]);
    let sizes = |records_max, lines: &[&Bytes]| {
        let mut batcher = Batcher::new(records_max);
        let mut cuts = Vec::new();
        for line in lines {
            batcher.push(Line::Record((*line).clone()), &mut cuts);
        }
        cuts.extend(batcher.cut());
        cuts.into_iter()
            .map(|cut| match cut {
                Cut::Batch(batch) => batch.records.len(),
                Cut::TooLong(_) => 0,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(None, &[&big, &big, &big]), [1, 1, 1]);
    assert_eq!(sizes(Some(10), &[&big, &big, &big]), [3]);
    assert_eq!(sizes(Some(10), &[&huge, &big]), [1, 1]);
}
