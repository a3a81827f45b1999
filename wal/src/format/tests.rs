//! The tables of `docs/format-wal.md`, held in place by golden files.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Compares with a golden file; writes it anew if `WAL_GOLDEN_WRITE` is set.
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("WAL_GOLDEN_WRITE").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
}

fn meta() -> MetaRecord {
    MetaRecord {
        store_id: 0x1F1E_1D1C_1B1A_1918_1716_1514_1312_1110,
        generation: 0x2726_2524_2322_2120,
        sequence: 0x2F2E_2D2C_2B2A_2928,
        first_segment_seq: 0x3736_3534_3332_3130,
        last_segment_seq: 0x3F3E_3D3C_3B3A_3938,
        initialised: true,
        seed: 0x4B4A_4948,
        value: b"term and vote".to_vec(),
    }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        store_id: 0x1F1E_1D1C_1B1A_1918_1716_1514_1312_1110,
        segment_seq: 0x2726_2524_2322_2120,
        incarnation: 0x2F2E_2D2C_2B2A_2928,
        segment_bytes: 0x3736_3534_3332_3130,
        base_index: 0x3F3E_3D3C_3B3A_3938,
        base_term: 0x4746_4544_4342_4140,
        base_crc: 0x4B4A_4948,
        group_bytes_max: 0x4F4E_4D4C,
        groups_in_flight_max: 0x5352_5150,
        flags: PREDECESSOR_SEALED | USED_BEFORE,
        previous_end_offset: 0x5F5E_5D5C_5B5A_5958,
        previous_group_seq: 0x6766_6564_6362_6160,
        previous_group_crc: 0x6B6A_6968,
        linked_group_crc: 0,
        first_group_seq: 0x7776_7574_7372_7170,
        previous_seal_offset: 0x7F7E_7D7C_7B7A_7978,
    }
}

fn group(kind: GroupKind) -> GroupHeader {
    let (batch_count, payload_bytes) = match kind {
        GroupKind::Data => (3, 320),
        GroupKind::Seal => (2, 48),
        _ => (0, 0),
    };
    GroupHeader {
        kind,
        group_seq: 0x0F0E_0D0C_0B0A_0908,
        durable_group_seq: 0x0F0E_0D0C_0B0A_0907,
        first_index: 0x1F1E_1D1C_1B1A_1918,
        term: 0x2726_2524_2322_2120,
        batch_count,
        payload_bytes,
        payload_crc: 0x3332_3130,
        previous_group_crc: 0x3736_3534,
        meta_generation: 0x3B3A_3938,
        flags: 0,
    }
}

const KINDS: [GroupKind; 5] = [
    GroupKind::Data,
    GroupKind::Truncate,
    GroupKind::Reset,
    GroupKind::Idle,
    GroupKind::Seal,
];

#[test]
fn the_bytes_are_those_of_the_golden_files() {
    let mut block = [0xEE; BLOCK_BYTES];
    meta().encode(&mut block);
    golden("meta-slot.bin", &block);
    assert_eq!(MetaRecord::decode(&block), Ok(meta()));
    segment().encode(&mut block);
    golden("segment-header.bin", &block);
    assert_eq!(SegmentHeader::decode(&block), Ok(segment()));
    let mut groups = Vec::new();
    for kind in KINDS {
        let (bytes, crc) = group(kind).encode(segment().seed());
        assert_eq!(
            GroupHeader::decode(&bytes, segment().seed()),
            Some((group(kind), crc))
        );
        groups.extend_from_slice(&bytes);
    }
    golden("group-headers.bin", &groups);
    let rows = [
        SealRow {
            first_index: 7,
            term: 3,
            offset: 4096,
            batch_count: 5,
        },
        SealRow {
            first_index: 12,
            term: 4,
            offset: 8192,
            batch_count: 1,
        },
    ];
    let mut bytes = Vec::new();
    encode_rows(&rows, &mut bytes);
    golden("seal-rows.bin", &bytes);
    assert_eq!(decode_rows(&bytes), Some(rows.to_vec()));
}

#[test]
fn a_damaged_block_is_not_a_future_version() {
    let mut block = [0; BLOCK_BYTES];
    segment().encode(&mut block);
    for at in 0..BLOCK_BYTES {
        let mut damaged = block;
        damaged[at] ^= 4;
        assert!(
            matches!(SegmentHeader::decode(&damaged), Err(BlockError::Damaged(_))),
            "byte {at}"
        );
    }
    block[8..12].copy_from_slice(&2u32.to_le_bytes());
    let crc = block_crc(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&block), Err(BlockError::Version(2)));
}

#[test]
fn another_seed_makes_a_group_invalid() {
    let seed = segment().seed();
    let other = SegmentHeader {
        incarnation: 1,
        ..segment()
    }
    .seed();
    assert_ne!(seed, other);
    for kind in KINDS {
        let (bytes, _) = group(kind).encode(seed);
        assert_eq!(GroupHeader::decode(&bytes, other), None);
        for at in 0..GROUP_HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(GroupHeader::decode(&damaged, seed), None, "byte {at}");
        }
        assert_eq!(GroupHeader::decode(&bytes[..63], seed), None);
        assert_eq!(raw_group_seq(&bytes), Some(group(kind).group_seq));
    }
}

#[test]
fn file_names_are_read_as_they_are_written() {
    let names = [
        FileName::Lock,
        FileName::Meta,
        FileName::Segment(SegmentName {
            segment_seq: 9,
            first_index: 1_234,
        }),
        FileName::Segment(SegmentName {
            segment_seq: u64::MAX,
            first_index: u64::MAX,
        }),
        FileName::Spare(3),
        FileName::Temporary(u64::MAX),
    ];
    for name in names {
        assert_eq!(FileName::parse(&name.to_string()), Some(name));
    }
    assert_eq!(
        names[2].to_string(),
        "seg-00000000000000001234-0000000009.wal"
    );
    for foreign in [
        "",
        "seg-1-1.wal",
        "seg-00000000000000001234-0000000009",
        "spare-+000000003.wal",
        "LOCK.bak",
    ] {
        assert_eq!(FileName::parse(foreign), None, "{foreign}");
    }
}

proptest! {
    #[test]
    fn decoders_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed: u32) {
        let _ = GroupHeader::decode(&bytes, seed);
        let _ = decode_rows(&bytes);
        let _ = MetaRecord::decode(&bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = FileName::parse(&String::from_utf8_lossy(&bytes));
    }
}
