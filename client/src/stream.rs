//! A tail as a `Stream`, for code that combines streams. It adds nothing to [`Tail`].

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{BoxStream, Stream, StreamExt, unfold};

use crate::{ClientError, Tail, TailEvent};

/// The events of a [`Tail`]. From [`Tail::into_stream`].
///
/// It ends behind [`TailEvent::Closed`] only. After an error it goes on at the same position when it is polled
/// again, as the tail does; whoever wants it to end there takes until the first error.
pub struct TailStream(BoxStream<'static, Result<TailEvent, ClientError>>);

impl TailStream {
    pub(crate) fn new(tail: Tail) -> Self {
        let events = unfold(Some(tail), |tail| async move {
            let mut tail = tail?;
            let event = tail.next().await;
            let is_closed = matches!(event, Ok(TailEvent::Closed { .. }));
            Some((event, (!is_closed).then_some(tail)))
        });
        Self(events.boxed())
    }
}

impl Stream for TailStream {
    type Item = Result<TailEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for TailStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TailStream").finish_non_exhaustive()
    }
}
