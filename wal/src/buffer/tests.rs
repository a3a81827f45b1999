//! Chunks, the groups and slices they hand out, and reuse.

use super::*;

#[test]
fn a_group_is_header_payload_and_zeros_to_the_block() {
    let mut chunk = Chunk::new(3 * BLOCK_BYTES, false);
    // Memory that is used again holds old bytes; padding must not let them through.
    chunk.open_group();
    chunk.push([&[0xFF; 4_000], &[0xFF; 8]], 4_008);
    let blocks = chunk.close_group().finish(&[0xFF; 64]);
    assert!(blocks[..64 + 4_008].iter().all(|byte| *byte == 0xFF));
    drop(blocks);
    let mut chunk = chunk.reclaim().unwrap();
    chunk.open_group();
    chunk.push([b"head", b"body!"], 16);
    let closed = chunk.close_group();
    assert_eq!(closed.bytes(), BLOCK_BYTES);
    let blocks = closed.finish(&[7; 64]);
    assert_eq!(blocks[..64], [7; 64]);
    assert_eq!(blocks[64..80], *b"headbody!\0\0\0\0\0\0\0");
    assert!(blocks[80..].iter().all(|byte| *byte == 0));
    assert_eq!(blocks.as_ptr() as usize % BLOCK_BYTES, 0);
}

#[test]
fn pieces_never_hold_a_group_header() {
    let mut chunk = Chunk::new(4 * BLOCK_BYTES, false);
    for group in 0..2u8 {
        chunk.open_group();
        for batch in 0..3 {
            chunk.push([&[group * 10 + batch; 8], &[]], 8);
        }
        chunk.close_group();
    }
    let (mut bytes, mut pieces) = (0, Vec::new());
    assert_eq!(chunk.pieces(1, 6, usize::MAX, &mut bytes, &mut pieces), 5);
    assert_eq!(bytes, 40);
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    assert_eq!(
        pieces,
        [
            [[1; 8], [2; 8]].concat(),
            [[10; 8], [11; 8], [12; 8]].concat()
        ]
    );
    let (mut bytes, mut pieces) = (0, Vec::new());
    assert_eq!(chunk.pieces(0, 6, 20, &mut bytes, &mut pieces), 2);
    assert_eq!(
        chunk.pieces(2, 6, 0, &mut bytes, &mut pieces),
        0,
        "bytes were taken before"
    );
}

#[test]
fn a_chunk_is_used_again_only_when_nobody_reads_it() {
    let mut chunk = Chunk::new(BLOCK_BYTES, false);
    chunk.open_group();
    chunk.push([&[5; 8], &[]], 8);
    let closed = chunk.close_group();
    let (mut bytes, mut pieces) = (0, Vec::new());
    chunk.pieces(0, 1, 8, &mut bytes, &mut pieces);
    drop(closed);
    assert!(chunk.reclaim().is_none());
    assert_eq!(pieces[0], [5; 8][..]);
}

#[test]
fn readers_on_other_threads_see_what_was_shared_while_the_owner_writes_on() {
    let mut chunk = Chunk::new(64 * BLOCK_BYTES, false);
    let mut readers = Vec::new();
    for round in 0..60u8 {
        chunk.open_group();
        chunk.push([&[round; 512], &[]], 512);
        let closed = chunk.close_group();
        let (mut bytes, mut pieces) = (0, Vec::new());
        chunk.pieces(
            usize::from(round),
            usize::from(round) + 1,
            512,
            &mut bytes,
            &mut pieces,
        );
        readers.push(std::thread::spawn(move || {
            pieces[0].iter().all(|byte| *byte == round)
        }));
        let _blocks = closed.finish(&[0xAA; 64]);
    }
    assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
}

#[test]
fn memory_of_whole_huge_pages_is_on_their_boundary_and_all_of_it_is_used() {
    for pages in [1, 3] {
        let mut chunk = Chunk::new(pages * HUGE_PAGE_BYTES, true);
        assert!(matches!(chunk.allocation.memory, Memory::Map { .. }));
        assert_eq!(chunk.capacity(), pages * HUGE_PAGE_BYTES);
        chunk.open_group();
        let room = chunk.room();
        chunk.push([&vec![3; room], &[]], room);
        let blocks = chunk.close_group().finish(&[7; 64]);
        assert_eq!(blocks.len(), pages * HUGE_PAGE_BYTES);
        assert_eq!(blocks.as_ptr() as usize % HUGE_PAGE_BYTES, 0);
        assert_eq!(blocks[..64], [7; 64]);
        assert!(blocks[64..].iter().all(|byte| *byte == 3));
        assert!(chunk.reclaim().is_none(), "the group is still held");
    }
}

#[test]
fn only_bulk_memory_of_whole_huge_pages_is_in_them() {
    let is_on_heap = |chunk: &Chunk| matches!(chunk.allocation.memory, Memory::Heap(_));
    let mut odd = Chunk::new(HUGE_PAGE_BYTES + 1, true);
    odd.move_to_huge_pages();
    assert!(is_on_heap(&odd));
    assert_eq!(odd.capacity(), HUGE_PAGE_BYTES + BLOCK_BYTES);

    let mut chunk = Chunk::new(HUGE_PAGE_BYTES, false);
    assert!(is_on_heap(&chunk));
    let held = Arc::clone(&chunk.allocation);
    chunk.move_to_huge_pages();
    assert!(is_on_heap(&chunk), "memory that is held elsewhere stays");
    drop(held);
    chunk.move_to_huge_pages();
    assert!(!is_on_heap(&chunk));
    assert_eq!(chunk.capacity(), HUGE_PAGE_BYTES);
    let moved = chunk.allocation.pointer;
    chunk.move_to_huge_pages();
    assert_eq!(chunk.allocation.pointer, moved, "once is enough");
}
