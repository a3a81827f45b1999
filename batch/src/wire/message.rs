//! What all messages share: their kinds, and a macro that lays plain fields out in order.

use crate::DecodeError;

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $value:literal,)*) => {
        /// What a frame holds.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum MessageKind { $($(#[$meta])* $name = $value,)* }

        impl MessageKind {
            /// The kind of this number.
            ///
            /// # Errors
            /// [`DecodeError::Invalid`] for a number without a kind.
            pub fn decode(value: u8) -> Result<Self, DecodeError> {
                Ok(match value {
                    $($value => Self::$name,)*
                    _ => return Err(DecodeError::Invalid { what: "message kind", found: value.into() }),
                })
            }
        }
    };
}

kinds! {
    /// [`super::Hello`]
    Hello = 0x01,
    /// [`super::HelloAck`]
    HelloAck = 0x02,
    /// [`super::HelloReject`]
    HelloReject = 0x03,
    /// [`super::VoteRequest`]
    VoteRequest = 0x10,
    /// [`super::VoteReply`]
    VoteReply = 0x11,
    /// [`super::Heartbeat`]
    Heartbeat = 0x12,
    /// [`super::HeartbeatReply`]
    HeartbeatReply = 0x13,
    /// [`super::AppendEntries`]
    AppendEntries = 0x14,
    /// [`super::AppendReply`]
    AppendReply = 0x15,
    /// [`super::TimeoutNow`]
    TimeoutNow = 0x16,
    /// [`super::SnapshotChunk`]
    SnapshotChunk = 0x17,
    /// [`super::SnapshotReply`]
    SnapshotReply = 0x18,
    /// [`super::ReadIndexRequest`]
    ReadIndexRequest = 0x19,
    /// [`super::ReadIndexReply`]
    ReadIndexReply = 0x1A,
    /// [`super::EntriesRequest`]
    EntriesRequest = 0x1B,
    /// [`super::EntriesReply`]
    EntriesReply = 0x1C,
    /// [`super::LogEndRequest`]
    LogEndRequest = 0x1D,
    /// [`super::LogEndReply`]
    LogEndReply = 0x1E,
    /// [`super::ErrorReply`]
    ErrorReply = 0x40,
    /// [`super::ProducerOpen`]
    ProducerOpen = 0x41,
    /// [`super::ProducerOpened`]
    ProducerOpened = 0x42,
    /// [`super::LogCreate`]
    LogCreate = 0x43,
    /// [`super::LogInfo`]
    LogInfo = 0x44,
    /// [`super::LogLookup`]
    LogLookup = 0x45,
    /// [`super::LogList`]
    LogList = 0x46,
    /// [`super::LogListed`]
    LogListed = 0x47,
    /// [`super::Append`]
    Append = 0x48,
    /// [`super::Appended`]
    Appended = 0x49,
    /// [`super::Read`]
    Read = 0x4A,
    /// [`super::ReadReply`]
    ReadReply = 0x4B,
    /// [`super::TailStart`]
    TailStart = 0x4C,
    /// [`super::TailData`]
    TailData = 0x4D,
    /// [`super::TailCredit`]
    TailCredit = 0x4E,
    /// [`super::TailStop`]
    TailStop = 0x4F,
    /// [`super::Status`]
    Status = 0x50,
    /// [`super::StatusReply`]
    StatusReply = 0x51,
    /// [`super::LogDescribe`]
    LogDescribe = 0x52,
    /// [`super::LogDescribed`]
    LogDescribed = 0x53,
    /// [`super::SeqAt`]
    SeqAt = 0x54,
    /// [`super::SeqFound`]
    SeqFound = 0x55,
    /// [`super::Latency`]
    Latency = 0x56,
    /// [`super::LatencyReply`]
    LatencyReply = 0x57,
    /// [`super::AppendTogether`]
    AppendTogether = 0x58,
    /// [`super::AppendedTogether`]
    AppendedTogether = 0x59,
    /// [`super::MemberList`]
    MemberList = 0x60,
    /// [`super::MemberListed`]
    MemberListed = 0x61,
    /// [`super::MemberChange`]
    MemberChange = 0x62,
    /// [`super::LeaderTransfer`]
    LeaderTransfer = 0x63,
    /// [`super::LeaderTransferred`]
    LeaderTransferred = 0x64,
    /// [`super::LogTrim`]
    LogTrim = 0x65,
    /// [`super::LogChangeRequest`]
    LogChangeRequest = 0x66,
}

/// A message's head: the fields of a frame that are not batches.
pub trait Message: Sized {
    /// The kind of the frame.
    const KIND: MessageKind;

    /// Appends the head's bytes to `out`.
    fn encode_head(&self, out: &mut Vec<u8>);

    /// The message that fills `head` exactly.
    ///
    /// # Errors
    /// [`DecodeError`]
    fn decode_head(head: &[u8]) -> Result<Self, DecodeError>;
}

/// Declares a message whose head is its fields in order: integers as they are, `bool` as one byte of 0
/// or 1, `String` behind a `u16` length. The `appended` fields are all there or all absent: then they have
/// their type's default, which is what their documentation says of nodes that do not send them.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ident,)* }
        $(appended { $($(#[$late_meta:meta])* $late:ident: $late_kind:ident,)* })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, PartialEq, Default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $kind,)*
            $($($(#[$late_meta])* pub $late: $late_kind,)*)?
        }

        impl $crate::wire::Message for $name {
            const KIND: $crate::wire::MessageKind = $crate::wire::MessageKind::$name;

            fn encode_head(&self, out: &mut Vec<u8>) {
                #[allow(unused_mut, unused_variables, reason = "a message may have no fields")]
                let mut writer = $crate::Writer::new(out);
                $($crate::wire::message::field!(put writer, &self.$field, $kind);)*
                $($($crate::wire::message::field!(put writer, &self.$late, $late_kind);)*)?
            }

            fn decode_head(head: &[u8]) -> Result<Self, $crate::DecodeError> {
                #[allow(unused_mut, reason = "a message may have no fields")]
                let mut reader = $crate::Reader::new(stringify!($name), head);
                #[allow(unused_mut, reason = "most messages have no appended fields")]
                let mut message = Self {
                    $($field: $crate::wire::message::field!(get reader, $kind, $name, $field),)*
                    $($($late: Default::default(),)*)?
                };
                $(if reader.remaining() > 0 {
                    $(message.$late =
                        $crate::wire::message::field!(get reader, $late_kind, $name, $late);)*
                })?
                reader.finish()?;
                Ok(message)
            }
        }
    };
}

macro_rules! field {
    (put $writer:ident, $value:expr, String) => {
        $writer.text($value)
    };
    (put $writer:ident, $value:expr, bool) => {
        $writer.u8(u8::from(*$value))
    };
    (put $writer:ident, $value:expr, $kind:ident) => {
        $writer.$kind(*$value)
    };
    (get $reader:ident, String, $name:ident, $field:ident) => {
        $reader.text()?.to_owned()
    };
    (get $reader:ident, bool, $name:ident, $field:ident) => {
        $reader.bool(concat!(stringify!($name), ".", stringify!($field)))?
    };
    (get $reader:ident, $kind:ident, $name:ident, $field:ident) => {
        $reader.$kind()?
    };
}

pub(crate) use {field, message};
