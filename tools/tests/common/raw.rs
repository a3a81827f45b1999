//! A client that writes its frames by hand, for what the client library would not do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use drave_batch::wire::{
    FRAME_HEADER_BYTES, FrameHeader, HelloAck, Message, decode_head, encode_frame,
};
use drave_net::handshake::Connector;

use super::LIMIT;

/// A connection to one node, greeted.
pub(crate) struct RawClient(TcpStream);

impl RawClient {
    pub(crate) fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let hello = Connector::client(None, 0).hello_bytes();
        stream.write_all(&hello).unwrap();
        let mut client = Self(stream);
        client.receive::<HelloAck>();
        client
    }

    pub(crate) fn send<M: Message>(&mut self, request_id: u64, message: &M) {
        let mut frame = Vec::new();
        encode_frame(&mut frame, 0, request_id, message, 0);
        self.0.write_all(&frame).unwrap();
    }

    /// The same with what the frame carries behind its head.
    pub(crate) fn send_with<M: Message>(&mut self, request_id: u64, message: &M, payload: &[u8]) {
        let mut frame = Vec::new();
        encode_frame(&mut frame, 0, request_id, message, payload.len());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).unwrap();
    }

    /// The same connection, for another thread: one sends and one receives.
    pub(crate) fn other_end(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    /// The next frame; what it carries behind its head is passed over.
    pub(crate) fn next_frame(&mut self) -> (FrameHeader, Vec<u8>) {
        let header = FrameHeader::decode(&self.take()).unwrap();
        let mut rest = vec![0; usize::from(header.head_len) + header.payload_len as usize];
        self.0.read_exact(&mut rest).unwrap();
        rest.truncate(header.head_len.into());
        (header, rest)
    }

    fn take(&mut self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn receive<M: Message>(&mut self) -> M {
        let (header, head) = self.next_frame();
        decode_head(&header, &head).unwrap()
    }
}
