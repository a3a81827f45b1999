//! Bodies of control entries: what changes the group itself rather than one log's records.

use crate::{DecodeError, Reader, Writer};

/// Bytes of a log name at most.
pub const LOG_NAME_BYTES_MAX: usize = 255;

/// Members of a group at most.
pub const MEMBERS_MAX: usize = 15;

/// Why `name` is no log name, if it is none: 1 to 255 bytes of letters, digits, `.`, `_`, `-`, `/`, not
/// starting with `.` or `/`.
#[must_use]
pub fn log_name_error(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a log name is at least 1 byte");
    }
    if name.len() > LOG_NAME_BYTES_MAX {
        return Some("a log name is at most 255 bytes");
    }
    if name.starts_with(['.', '/']) {
        return Some("a log name does not start with '.' or '/'");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !name.chars().all(allowed) {
        return Some("a log name is made of letters, digits, '.', '_', '-' and '/'");
    }
    None
}

/// Bytes of a member's address at most.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Why `address` is no member's address, if it is none: HOST:PORT, at most 255 bytes, a port from 1 to 65535.
#[must_use]
pub fn address_error(address: &str) -> Option<&'static str> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Some("an address is at most 255 bytes");
    }
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let is_host =
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
        is_host.then(|| port.parse::<u16>().ok()).flatten()
    });
    match port {
        Some(port) if port > 0 => None,
        _ => Some("an address is HOST:PORT with a port from 1 to 65535"),
    }
}

/// Body of [`crate::EntryKind::LogCreate`]; the entry's header carries the new `log_id`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogCreated {
    /// The log's name.
    pub name: String,
}

impl LogCreated {
    /// The body's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Writer::new(&mut out).text(&self.name);
        out
    }

    /// The value of a body.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("LogCreated", body);
        let name = fields.text()?.to_owned();
        fields.finish()?;
        if log_name_error(&name).is_some() {
            return Err(DecodeError::Invalid {
                what: "LogCreated.name",
                found: name.len() as u64,
            });
        }
        Ok(Self { name })
    }
}

/// Body of [`crate::EntryKind::ProducerRegister`]; the producer's id is the entry's index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProducerRegistered {
    /// A name for people; may be empty.
    pub name: String,
}

impl ProducerRegistered {
    /// The body's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Writer::new(&mut out).text(&self.name);
        out
    }

    /// The value of a body.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("ProducerRegistered", body);
        let name = fields.text()?.to_owned();
        fields.finish()?;
        Ok(Self { name })
    }
}

/// What a member may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum MemberRole {
    /// Votes in the current configuration.
    Voter = 1,
    /// Is replicated to and does not vote.
    Learner = 2,
}

/// One member of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its node id.
    pub node_id: u64,
    /// Voter or learner in the new configuration; `None` when it is only in the outgoing one.
    pub role: Option<MemberRole>,
    /// Whether it votes in the outgoing half of a joint configuration.
    pub outgoing_voter: bool,
    /// Its incarnation; 0 while it is not known.
    pub incarnation: u128,
    /// Its HOST:PORT.
    pub address: String,
}

impl Member {
    /// Appends its bytes.
    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.node_id);
        writer.u8(self.role.map_or(0, |role| role as u8));
        writer.u8(u8::from(self.outgoing_voter));
        writer.u128(self.incarnation);
        writer.text(&self.address);
    }

    /// The next member in `fields`.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub(crate) fn decode(fields: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let node_id = fields.u64()?;
        let role = match fields.u8()? {
            0 => None,
            1 => Some(MemberRole::Voter),
            2 => Some(MemberRole::Learner),
            other => {
                return Err(DecodeError::Invalid {
                    what: "Member.role",
                    found: other.into(),
                });
            }
        };
        Ok(Self {
            node_id,
            role,
            outgoing_voter: fields.bool("Member.outgoing_voter")?,
            incarnation: fields.u128()?,
            address: fields.text()?.to_owned(),
        })
    }
}

/// Body of [`crate::EntryKind::Configuration`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members {
    /// The highest id that was ever a member. Ids are not used again: a new member's is above it.
    pub node_id_max: u64,
    /// The members, ascending by node id.
    pub members: Vec<Member>,
}

impl Members {
    /// These members, and no other node has ever been one.
    #[must_use]
    pub fn first(members: Vec<Member>) -> Self {
        let node_id_max = members.iter().map(|member| member.node_id).max();
        Self {
            node_id_max: node_id_max.unwrap_or(0),
            members,
        }
    }

    /// The body's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.u64(self.node_id_max);
        writer.u32(self.members.len() as u32);
        for member in &self.members {
            member.encode(&mut writer);
        }
        out
    }

    /// The value of a body.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("Members", body);
        let node_id_max = fields.u64()?;
        let count = fields.u32()?;
        if count as usize > MEMBERS_MAX {
            return Err(DecodeError::TooLarge {
                what: "Members",
                limit: MEMBERS_MAX as u64,
                found: count.into(),
            });
        }
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..count {
            let member = Member::decode(&mut fields)?;
            let node_id = member.node_id;
            let ascends = members.last().is_none_or(|last| last.node_id < node_id);
            if node_id == 0 || !ascends || node_id > node_id_max {
                return Err(DecodeError::Invalid {
                    what: "Members.node_id order",
                    found: node_id,
                });
            }
            members.push(member);
        }
        fields.finish()?;
        Ok(Self {
            node_id_max,
            members,
        })
    }
}
