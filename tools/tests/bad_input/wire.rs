//! The abuser's side of a connection: any bytes out, frames in, each wait with an end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use drave_batch::checksum;
use drave_batch::wire::{
    ClusterId, ErrorCode, ErrorReply, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAck,
    HelloReject, Lane, Message, MessageKind, PROTOCOL_VERSION, Role, Status, StatusReply,
    decode_head, encode_frame,
};

/// An answer takes no longer than this on any machine that is fit to run the tests.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) header: FrameHeader,
    head: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    #[track_caller]
    pub(crate) fn decode<M: Message>(&self) -> M {
        decode_head(&self.header, &self.head).unwrap()
    }

    /// The number of the code, if it is a refusal of any kind.
    pub(crate) fn code(&self) -> Option<u32> {
        match self.header.kind {
            MessageKind::ErrorReply => Some(self.decode::<ErrorReply>().code),
            MessageKind::HelloReject => Some(self.decode::<HelloReject>().code),
            _ => None,
        }
    }
}

/// One connection to the node.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        Self { stream }
    }

    /// Sends bytes. A node that has closed already is no error here: what it answered is.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if is_closed(error.kind()) => {}
            Err(error) => panic!("the node does not take {} bytes: {error}", bytes.len()),
        }
    }

    /// Sends what the socket takes, and gives up on the rest once the node no longer reads: how many
    /// bytes went.
    pub(crate) fn send_what_fits(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(written) => sent += written,
                Err(_) => break,
            }
        }
        sent
    }

    pub(crate) fn send_message<M: Message>(&mut self, request_id: u64, message: &M) {
        self.send(&frame(0, request_id, message, &[]));
    }

    /// Sends no more; what the node answers can still be read.
    pub(crate) fn finish(&mut self) {
        // A node that has closed already is told nothing.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next frame, or `None` when the node has closed.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Option<Received> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if !self.fill(&mut bytes) {
            return None;
        }
        let header = FrameHeader::decode(&bytes).unwrap();
        let mut head = vec![0; header.head_len.into()];
        let mut payload = vec![0; header.payload_len as usize];
        let whole = self.fill(&mut head) && self.fill(&mut payload);
        assert!(whole, "the node closed inside its frame {header:?}");
        Some(Received {
            header,
            head,
            payload,
        })
    }

    /// Fills `bytes`; `false` when the node closed before.
    #[track_caller]
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        match self.stream.read_exact(bytes) {
            Ok(()) => true,
            Err(error) if is_closed(error.kind()) => false,
            Err(error) => {
                panic!("neither an answer nor a close within {ANSWER_TIMEOUT:?}: {error}")
            }
        }
    }

    /// All frames up to the node's close.
    #[track_caller]
    pub(crate) fn receive_to_close(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// The node refuses the connection with one of `codes`, and closes it.
    #[track_caller]
    pub(crate) fn refused_with(&mut self, what: &str, codes: &[ErrorCode]) -> Received {
        let frames = self.receive_to_close();
        let allowed: Vec<u32> = codes.iter().map(|code| *code as u32).collect();
        match &frames[..] {
            [only] if only.code().is_some_and(|code| allowed.contains(&code)) => {}
            other => {
                panic!("{what}: expected one refusal of {codes:?} and a close, found {other:?}")
            }
        }
        frames.into_iter().next().unwrap()
    }

    /// The next frame is the answer to this request.
    #[track_caller]
    pub(crate) fn answer(&mut self, request_id: u64) -> Received {
        let frame = self.receive().expect("an answer, not a close");
        let (found, kind) = (frame.header.request_id, frame.header.kind);
        let code = frame.code();
        assert_eq!(
            found, request_id,
            "an answer to another request: {kind:?} {code:?}"
        );
        frame
    }

    /// The next frame refuses this request with `code`; the connection stays open.
    #[track_caller]
    pub(crate) fn answer_refused(&mut self, request_id: u64, code: ErrorCode) -> ErrorReply {
        let frame = self.answer(request_id);
        assert_eq!(frame.header.kind, MessageKind::ErrorReply);
        let reply: ErrorReply = frame.decode();
        assert_eq!(reply.code, code as u32, "{code} expected: {reply:?}");
        reply
    }

    /// The connection still serves: a request for the status is answered, after what may come before.
    #[track_caller]
    pub(crate) fn still_serves(&mut self) {
        const REQUEST_ID: u64 = u64::MAX - 1;
        self.send_message(REQUEST_ID, &Status {});
        loop {
            let frame = self.receive().expect("the connection stays open");
            if frame.header.request_id == REQUEST_ID {
                let _: StatusReply = frame.decode();
                return;
            }
        }
    }

    #[track_caller]
    pub(crate) fn shake_hands(&mut self) -> HelloAck {
        self.send(&frame(0, 0, &client_hello(), &[]));
        let answer = self.receive().expect("an answer to the hello");
        answer.decode()
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// A client's hello as it should be.
pub(crate) fn client_hello() -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        role: Role::Client,
        lane: Lane::Control,
        node_id: 0,
        incarnation: 0,
        to_node_id: 0,
        cluster_id: Some(ClusterId::new("test").unwrap()),
        settings: None,
    }
}

/// A whole frame around a message.
pub(crate) fn frame<M: Message>(
    group_id: u32,
    request_id: u64,
    message: &M,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, group_id, request_id, message, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame with checksums that fit, around any head of any kind.
pub(crate) fn frame_around(kind: MessageKind, request_id: u64, head: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        kind,
        head_len: u16::try_from(head.len()).unwrap(),
        payload_len: 0,
        head_crc: checksum(head),
        group_id: 0,
        request_id,
    };
    [&header.encode()[..], head].concat()
}

/// Changes bytes of an encoded header of a frame or a batch, and mends its checksum, which is its first
/// field and covers `covered` bytes from byte 4 on.
pub(crate) fn forge(bytes: &mut [u8], covered: usize, at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
    let crc = checksum(&bytes[4..4 + covered]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Numbers that look random, from a seed that whoever makes it prints.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        eprintln!("seed {seed:#x}");
        Self(seed)
    }

    /// As many as a test says, some of them the same in every run and the last drawn for this one.
    pub(crate) fn several() -> Vec<Self> {
        [1, 0xD1CE, 0xFEED_5EED, crate::common::seed()]
            .map(Self::new)
            .into()
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In `[lo, hi)`.
    pub(crate) fn between(&mut self, lo: usize, hi: usize) -> usize {
        lo + (self.next() % (hi - lo) as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
