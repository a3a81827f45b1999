//! The wire messages: a frame around each, a handshake first, then peers' or clients' messages.
//!
//! Byte layouts only. What a message means and when it may be sent belongs to those who exchange them.

mod admin;
mod client;
mod error_code;
mod frame;
mod hello;
mod latency;
mod log;
mod message;
mod peer;
mod repair;
mod together;

pub use admin::{
    LeaderTransfer, LeaderTransferred, LogTrim, MemberChange, MemberList, MemberListed,
    MemberOperation, MemberStatus,
};
pub use client::{
    Append, Appended, EXPECT_SEQ_NONE, ErrorReply, FENCE_NONE, LOCAL_READ, LogCreate, LogInfo,
    LogList, LogListed, LogLookup, ProducerOpen, ProducerOpened, Read, ReadReply, ScrubStatus,
    Status, StatusMember, StatusReply, TailCredit, TailData, TailStart, TailStop,
};
pub use error_code::{Effect, ErrorCode};
pub use frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_PAYLOAD_BYTES_MAX, FRAME_VERSION, FrameHeader,
    decode_head, encode_frame,
};
pub use hello::{
    CLUSTER_ID_BYTES_MAX, ClusterId, Hello, HelloAck, HelloReject, Lane, PROTOCOL_VERSION,
    PeerSettings, Role,
};
pub use latency::{Latency, LatencyReply, QuorumsClosed, StageLatency};
pub use log::{LogChangeRequest, LogDescribe, LogDescribed, SeqAt, SeqFound};
pub use message::{Message, MessageKind};
pub use peer::{
    AppendEntries, AppendReply, Heartbeat, HeartbeatReply, ReadIndexReply, ReadIndexRequest,
    SnapshotChunk, SnapshotReply, TimeoutNow, VoteReply, VoteRequest,
};
pub use repair::{EntriesHeld, EntriesReply, EntriesRequest, LogEndReply, LogEndRequest};
pub use together::{AppendTogether, AppendedPart, AppendedTogether, TogetherPart};
