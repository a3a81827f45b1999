//! Requests about logs as a whole: create, look up, describe, list, trim.

use drave_batch::control::{LOG_NAME_BYTES_MAX, log_name_error};
use drave_batch::wire::{
    LOCAL_READ, LogChangeRequest, LogCreate, LogDescribe, LogDescribed, LogInfo as WireLogInfo,
    LogList, LogListed, LogLookup, LogTrim,
};

use drave_batch::LogChange;

use crate::call::{Call, Target};
use crate::{ClientError, LogDescription, LogInfo};

/// Logs asked for in one page.
const PAGE_LOGS: u32 = 256;

/// Logs taken from one node in all: a node that pages without end is not followed for ever.
const LOGS_MAX: usize = 1 << 20;

/// What the request must say about who may answer.
pub(crate) fn consistency(target: &Target) -> u8 {
    match target {
        Target::Leader => 0,
        Target::Node(_) => LOCAL_READ,
    }
}

fn check_name(name: &str) -> Result<(), ClientError> {
    let Some(why) = log_name_error(name) else {
        return Ok(());
    };
    let mut len = name.len().min(LOG_NAME_BYTES_MAX);
    while !name.is_char_boundary(len) {
        len -= 1;
    }
    let name = name[..len].to_owned();
    Err(ClientError::LogName { name, why })
}

pub(crate) async fn create(
    call: &Call<'_>,
    name: &str,
    if_missing: bool,
) -> Result<LogInfo, ClientError> {
    check_name(name)?;
    let name = name.to_owned();
    let request = LogCreate { if_missing, name };
    let answer = call.run::<_, WireLogInfo>(&request).await?;
    check_answer(&request.name, answer.message, &answer.address)
}

pub(crate) async fn lookup(call: &Call<'_>, name: &str) -> Result<LogInfo, ClientError> {
    check_name(name)?;
    let request = LogLookup {
        consistency: consistency(call.target),
        name: name.to_owned(),
    };
    let answer = call.run::<_, WireLogInfo>(&request).await?;
    check_answer(name, answer.message, &answer.address)
}

pub(crate) async fn describe(call: &Call<'_>, name: &str) -> Result<LogDescription, ClientError> {
    check_name(name)?;
    let request = LogDescribe {
        consistency: consistency(call.target),
        name: name.to_owned(),
    };
    let answer = call.run::<_, LogDescribed>(&request).await?;
    check_described_name(name, &answer.message.name, &answer.address)?;
    Ok(answer.message.into())
}

pub(crate) async fn change(
    call: &Call<'_>,
    name: &str,
    log_id: u64,
    change: LogChange,
) -> Result<LogDescription, ClientError> {
    let request = LogChangeRequest { log_id, change };
    let answer = call.run::<_, LogDescribed>(&request).await?;
    check_described_name(name, &answer.message.name, &answer.address)?;
    Ok(answer.message.into())
}

pub(crate) async fn trim(
    call: &Call<'_>,
    name: &str,
    log_id: u64,
    first_seq: u64,
) -> Result<LogInfo, ClientError> {
    let answer = call
        .run::<_, WireLogInfo>(&LogTrim { log_id, first_seq })
        .await?;
    let info = check_answer(name, answer.message, &answer.address)?;
    if info.first_seq < first_seq {
        return Err(ClientError::Misbehaved {
            address: answer.address,
            what: "a log that begins where it was trimmed to",
            expected: first_seq,
            found: info.first_seq,
        });
    }
    Ok(info)
}

fn check_answer(name: &str, info: WireLogInfo, address: &str) -> Result<LogInfo, ClientError> {
    check_described_name(name, &info.name, address)?;
    Ok(info.into())
}

fn check_described_name(name: &str, found: &str, address: &str) -> Result<(), ClientError> {
    if found == name {
        return Ok(());
    }
    Err(ClientError::Misbehaved {
        address: address.to_owned(),
        what: "the log asked for (bytes of its name)",
        expected: name.len() as u64,
        found: found.len() as u64,
    })
}

pub(crate) async fn list(call: &Call<'_>) -> Result<Vec<LogInfo>, ClientError> {
    let mut logs: Vec<LogInfo> = Vec::new();
    loop {
        let request = LogList {
            consistency: consistency(call.target),
            count_max: PAGE_LOGS,
            after: logs.last().map_or(String::new(), |log| log.name.clone()),
        };
        let answer = call.run::<_, LogListed>(&request).await?;
        let misbehaved = |what, expected: usize, found: usize| ClientError::Misbehaved {
            address: answer.address.clone(),
            what,
            expected: expected as u64,
            found: found as u64,
        };
        let (page, more) = (answer.message.logs, answer.message.more);
        if more && page.is_empty() {
            return Err(misbehaved("logs in a page before the last", 1, 0));
        }
        if logs.len() + page.len() > LOGS_MAX {
            let found = logs.len() + page.len();
            return Err(misbehaved("logs in a group", LOGS_MAX, found));
        }
        for log in page {
            // Order is what makes paging end.
            if logs.last().is_some_and(|last| last.name >= log.name) {
                let at = logs.len();
                return Err(misbehaved("logs in order of their names", at, at));
            }
            logs.push(log.into());
        }
        if !more {
            return Ok(logs);
        }
    }
}
