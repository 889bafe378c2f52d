//! Where tests look at the disk: before each step by which a thread changes it.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use tempfile::TempDir;

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

/// A directory, in memory if there is one.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else if let Err(error) = fs::copy(entry.path(), to) {
            // A segment that another thread makes got its name meanwhile.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// What a process would find that opens the stream after this one was killed at each step of `run`.
pub(crate) fn killed_in<T>(directory: &Path, run: impl FnOnce() -> T) -> (Vec<TempDir>, T) {
    let images = Rc::new(RefCell::new(Vec::new()));
    let (taken, from) = (Rc::clone(&images), directory.to_owned());
    let look = move || {
        let image = scratch();
        if from.try_exists().unwrap() {
            copy_all(&from, image.path());
        }
        taken.borrow_mut().push(image);
    };
    let done = each(look, run);
    (images.take(), done)
}
