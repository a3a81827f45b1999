//! The store over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /kv/KEY`, the value as body | 200, its version as `ETag` |
//! | `GET /kv/KEY` | 200 with the value and `ETag`, or 404; `?local=true` asks this node alone, which may be behind |
//! | `DELETE /kv/KEY` | 200, or 404 when it was not there |
//! | `GET /kv?prefix=P&after=KEY&limit=N` | the keys in order, at most 1,000 |
//! | `GET /status` | how far this node is |
//!
//! `If-Match: "VERSION"` and `If-None-Match: *` make a change conditional: 412 when it does not hold. A change with
//! an `Idempotency-Key` (32 hexadecimal digits) is done once, however often and through whichever node it is sent.
//! 503 says that nothing was done, 504 that it is unknown: send it again with the same key.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use drave_embed::{Machine, ProposeError, QueryError};
use serde::{Deserialize, Serialize};

use crate::Kv;
use crate::command::{Answer, Change, Condition, KvCommand, RequestId, VALUE_BYTES_MAX};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Keys of one listing at most.
const KEYS_MAX: usize = 1_000;

/// What requests are served from.
pub type Store = Arc<Machine<Kv>>;

/// The routes.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/kv", get(list))
        .route("/kv/{*key}", put(set).get(value).delete(remove))
        .route("/status", get(status))
        // What is over the limit by little is refused by name.
        .layer(DefaultBodyLimit::max(2 * VALUE_BYTES_MAX))
        .with_state(store)
}

/// Why a request is not served.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    error: String,
    /// `nothing was done` or `unknown`.
    effect: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, error: impl ToString) -> Self {
        Self {
            status,
            error: error.to_string(),
            effect: "nothing was done",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        if error.has_no_side_effects() {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, error);
        }
        Self {
            effect: "unknown",
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, error)
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

fn bad(what: impl ToString) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, what)
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let text = headers.get(name).map(|value| value.to_str());
    text.transpose()
        .map_err(|error| bad(format!("{name}: {error}")))
}

fn condition(headers: &HeaderMap) -> Result<Condition, Refusal> {
    match (
        header(headers, &IF_MATCH)?,
        header(headers, &IF_NONE_MATCH)?,
    ) {
        (None, None) => Ok(Condition::None),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(other)) => Err(bad(format!("if-none-match: expected *, found {other:?}"))),
        (Some(version), None) => {
            let digits = version
                .strip_prefix('"')
                .and_then(|it| it.strip_suffix('"'));
            let number = digits.and_then(|digits| digits.parse().ok());
            let number = number.ok_or_else(|| {
                bad(format!(
                    "if-match: expected one version in quotes, found {version:?}"
                ))
            })?;
            Ok(Condition::Version(number))
        }
        (Some(_), Some(_)) => Err(bad(
            "if-match and if-none-match: expected one of them, found both",
        )),
    }
}

fn request_id(headers: &HeaderMap) -> Result<Option<RequestId>, Refusal> {
    let Some(text) = header(headers, &IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten();
    let number = number.ok_or_else(|| {
        bad(format!(
            "idempotency-key: expected 32 hexadecimal digits, found {text:?}"
        ))
    })?;
    Ok(Some(number.to_le_bytes()))
}

async fn change(
    store: &Store,
    headers: &HeaderMap,
    key: &str,
    change: Change<'_>,
) -> Result<Response, Refusal> {
    let command = KvCommand {
        id: request_id(headers)?,
        condition: condition(headers)?,
        key,
        change,
    };
    let command = command.encode().map_err(bad)?;
    let answer = store.propose(command).await?;
    let status = match answer {
        Answer::Put { .. } | Answer::Deleted { replaced: Some(_) } => StatusCode::OK,
        Answer::Deleted { replaced: None } => StatusCode::NOT_FOUND,
        Answer::Conflict { .. } => StatusCode::PRECONDITION_FAILED,
        Answer::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Answer::NotUnderstood => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (status, Json(answer)).into_response();
    if let Answer::Put { version, .. } = answer {
        let tag = etag(version).parse().expect("digits in quotes");
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

async fn set(
    State(store): State<Store>,
    Path(key): Path<String>,
    headers: HeaderMap,
    value: Bytes,
) -> Result<Response, Refusal> {
    change(&store, &headers, &key, Change::Put(&value)).await
}

async fn remove(
    State(store): State<Store>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    change(&store, &headers, &key, Change::Delete).await
}

#[derive(Deserialize)]
struct Consistency {
    #[serde(default)]
    local: bool,
}

async fn ask<R: Send + 'static>(
    store: &Store,
    local: bool,
    question: impl FnOnce(&Kv) -> R + Send + 'static,
) -> Result<R, Refusal> {
    Ok(if local {
        store.query_local(question).await?
    } else {
        store.query(question).await?
    })
}

async fn value(
    State(store): State<Store>,
    Path(key): Path<String>,
    Query(consistency): Query<Consistency>,
) -> Result<Response, Refusal> {
    let entry = ask(&store, consistency.local, move |kv| kv.get(&key).cloned()).await?;
    let entry = entry.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such key"))?;
    Ok(([(ETAG, etag(entry.version))], entry.value).into_response())
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<usize>,
    #[serde(default)]
    local: bool,
}

#[derive(Serialize)]
struct Listed {
    keys: Vec<ListedKey>,
    /// Whether there are keys behind the last one.
    more: bool,
}

#[derive(Serialize)]
struct ListedKey {
    key: String,
    version: u64,
    bytes: usize,
}

async fn list(
    State(store): State<Store>,
    Query(listing): Query<Listing>,
) -> Result<Json<Listed>, Refusal> {
    let limit = listing.limit.unwrap_or(KEYS_MAX);
    if !(1..=KEYS_MAX).contains(&limit) {
        return Err(bad(format!(
            "limit: expected 1 to {KEYS_MAX}, found {limit}"
        )));
    }
    let listed = ask(&store, listing.local, move |kv| {
        let mut keys = kv.keys(&listing.prefix, &listing.after);
        let taken = keys.by_ref().take(limit).map(|(key, entry)| ListedKey {
            key: key.to_owned(),
            version: entry.version,
            bytes: entry.value.len(),
        });
        Listed {
            keys: taken.collect(),
            more: keys.next().is_some(),
        }
    });
    Ok(Json(listed.await?))
}

#[derive(Serialize)]
struct Told {
    applied: u64,
    keys: usize,
    bytes: u64,
    snapshots_written: u64,
    restored: u64,
}

async fn status(State(store): State<Store>) -> Result<Json<Told>, Refusal> {
    let (keys, bytes) = store.query_local(|kv| (kv.len(), kv.bytes())).await?;
    let status = store.status();
    Ok(Json(Told {
        applied: status.applied,
        keys,
        bytes,
        snapshots_written: status.snapshots_written,
        restored: status.restored,
    }))
}
