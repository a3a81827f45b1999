//! Panics of the product as outcomes of a run: caught, told by text, not printed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static CAUGHT_HERE: Cell<bool> = const { Cell::new(false) };
    static TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `act`; a panic of this thread inside it is an error with its place and text.
///
/// # Errors
/// The panic. What `act` was changing is then half changed and of no more use.
pub fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    keep_texts();
    let outer = CAUGHT_HERE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(act));
    CAUGHT_HERE.set(outer);
    result.map_err(|_| TEXT.take().unwrap_or_default())
}

/// Keeps the texts of panics that are caught here instead of printing them; others as before.
fn keep_texts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |information| {
            if !CAUGHT_HERE.get() {
                return usual(information);
            }
            let at = information.location().map_or_else(String::new, |location| {
                format!("{}:{}: ", location.file(), location.line())
            });
            let payload = information.payload();
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            TEXT.set(Some(format!("{at}{text}")));
        }));
    });
}
