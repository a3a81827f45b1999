//! Futures that an owner keeps and polls among others.

use std::future::{Future, pending};
use std::pin::Pin;

/// A future under way, kept over the `select!`s that poll it.
pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The task's value, and no task from then on; waits for ever without one. Cancel-safe.
pub(crate) async fn finish<T>(task: &mut Option<Task<T>>) -> T {
    match task {
        Some(future) => {
            let value = future.as_mut().await;
            *task = None;
            value
        }
        None => pending().await,
    }
}
