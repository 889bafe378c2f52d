//! Where tests look at the disk: before each step by which a thread changes it.

use std::cell::RefCell;

type Look = Box<dyn FnMut()>;

thread_local! {
    static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
}

/// Calls `look` before each step that this thread takes in `run`, and once more at the end.
pub(crate) fn each<T>(look: impl FnMut() + 'static, run: impl FnOnce() -> T) -> T {
    LOOK.set(Some(Box::new(look)));
    let result = run();
    self::look();
    LOOK.set(None);
    result
}

/// The next step is about to be taken.
pub(super) fn look() {
    // Not while somebody looks: what that changes is no step.
    let look = LOOK.take();
    if let Some(mut look) = look {
        look();
        LOOK.set(Some(look));
    }
}
