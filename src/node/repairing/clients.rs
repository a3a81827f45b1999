//! What clients are told by a node that repairs its log: its status, and to go elsewhere.

use drave_batch::wire::{self, ErrorCode, MessageKind};
use drave_net::{ConnId, Frame};

use super::{Repairing, decode};
use crate::node::start::GROUP_ID;
use crate::repair::Patient as _;

/// Bytes of the text in an answer that refuses.
const MESSAGE_BYTES_MAX: usize = 1024;

impl Repairing {
    pub(super) fn on_client(
        &mut self,
        conn: ConnId,
        frame: &Frame,
    ) -> Result<(), (ErrorCode, String)> {
        let request_id = frame.header.request_id;
        let sent = match frame.header.kind {
            MessageKind::Status => {
                let _: wire::Status = decode(frame, MessageKind::Status)?;
                self.net
                    .send(conn, GROUP_ID, request_id, &self.status(), &[])
            }
            MessageKind::TailCredit | MessageKind::TailStop => Ok(()),
            MessageKind::Append
            | MessageKind::AppendTogether
            | MessageKind::LogCreate
            | MessageKind::ProducerOpen
            | MessageKind::LogLookup
            | MessageKind::LogList
            | MessageKind::LogDescribe
            | MessageKind::SeqAt
            | MessageKind::Read
            | MessageKind::TailStart
            | MessageKind::Latency
            | MessageKind::MemberList
            | MessageKind::MemberChange
            | MessageKind::LeaderTransfer
            | MessageKind::LogTrim
            | MessageKind::LogChangeRequest => {
                self.net
                    .send(conn, GROUP_ID, request_id, &self.refusal(), &[])
            }
            other => {
                let message = format!("clients do not send {other:?}");
                return Err((ErrorCode::UnexpectedMessage, message));
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%conn, %error, "answer not sent: the client is gone");
        }
        Ok(())
    }

    fn refusal(&self) -> wire::ErrorReply {
        let mut message = format!("the node repairs its log: {}", self.repair.describe());
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        wire::ErrorReply {
            code: ErrorCode::Repairing as u32,
            message,
            ..wire::ErrorReply::default()
        }
    }

    fn status(&self) -> wire::StatusReply {
        let now_us = self.clock.now().mono_us;
        let salvage = self.patient.salvage();
        let last_index = salvage.last_index();
        let missing = self.patient.missing();
        let durable_index = missing.first().map_or(last_index, |gap| gap.lo - 1);
        let members = self.members.members.iter();
        wire::StatusReply {
            node_id: self.node_id,
            term: self.hard_state.term,
            first_index: salvage.first_index(),
            last_index,
            durable_index,
            uptime_us: now_us.saturating_sub(self.started_us),
            role: "repairing".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fault: self.repair.describe(),
            members: members
                .map(|member| wire::StatusMember {
                    node_id: member.node_id,
                    address: member.address.clone(),
                })
                .collect(),
            ..wire::StatusReply::default()
        }
    }
}
