//! Where the kernel refuses io_uring, as the seccomp filters of containers do: the log says so in one line and
//! gives the same guarantees without it.
#![allow(unsafe_code, clippy::unwrap_used)]

use drave_batch::{BatchHeader, EntryKind};
use drave_wal::{EngineChoice, OpenError, Options, Read, Wal};

/// From now on this thread, and threads it starts, get `EPERM` from `io_uring_setup`.
fn forbid_io_uring() {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let program = [
        // The system call's number is the first field of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_io_uring_setup as u32,
            0,
            1,
        ),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            0,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the filter and its program live during the calls, which only read them; the program ends in a
    // return on every path.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter),
            0
        );
    }
}

fn options(engine: EngineChoice) -> Options {
    Options {
        segment_bytes: 64 << 10,
        engine,
        ..Options::default()
    }
}

/// Appends from `wal.last_index() + 1` to `end`, every one durable, over rolls.
fn append_to(wal: &mut Wal, end: u64) {
    let mut events = Vec::new();
    while wal.last_index() < end {
        let body = wal.last_index().to_le_bytes().repeat(100);
        let mut header = BatchHeader::new(EntryKind::Data, &body, 1);
        (header.index, header.term) = (wal.last_index() + 1, 1);
        wal.append(&mut header, &body).unwrap();
        if wal.last_index().is_multiple_of(50) {
            wal.flush(&mut events).unwrap();
        }
    }
    wal.flush(&mut events).unwrap();
    assert_eq!(wal.durable_index(), end);
}

/// Every entry `[1, end)`, encoded, from the files.
fn contents(wal: &Wal, end: u64) -> Vec<u8> {
    let (mut next, mut all) = (1, Vec::new());
    while next < end {
        let slices = match wal.read(next, end, 1 << 20).unwrap() {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run().unwrap(),
        };
        next = slices.hi;
        all.extend(slices.pieces.concat());
    }
    all
}

#[test]
fn a_refused_ring_gives_the_same_log_and_one_line_that_says_so() {
    let work = || {
        forbid_io_uring();
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), options(EngineChoice::Auto)).unwrap();
        assert_eq!(wal.engine_name(), "posix");
        let reason = wal.engine_reason().to_owned();
        assert!(!reason.contains('\n'), "{reason}");
        assert!(
            reason.contains("io_uring is not available") && reason.contains("not permitted"),
            "{reason}"
        );
        append_to(&mut wal, 500);
        assert!(wal.statistics().rolls > 2);
        let written = contents(&wal, 501);
        wal.close().unwrap();
        let wal = Wal::open(dir.path(), options(EngineChoice::Auto)).unwrap();
        assert_eq!(wal.last_index(), 500);
        assert!(contents(&wal, 501) == written, "what was written is read");
        drop(wal);
        let refused = Wal::open(dir.path(), options(EngineChoice::IoUring));
        assert!(
            matches!(&refused, Err(OpenError::Engine { reason }) if reason.contains("not permitted")),
            "{refused:?}"
        );
        (dir, written)
    };
    let (dir, written) = std::thread::spawn(work).join().unwrap();
    // A thread without the filter takes the same directory with whatever engine there is, and goes on.
    let mut wal = Wal::open(dir.path(), options(EngineChoice::Auto)).unwrap();
    assert!(contents(&wal, 501) == written);
    append_to(&mut wal, 600);
}
