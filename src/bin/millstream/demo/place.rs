//! Where the demo has its stream: a directory that is kept, or one that is removed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// The directory of the stream.
pub(super) struct Place {
    dir: PathBuf,
    is_temporary: bool,
}

impl Place {
    /// The directory given, or a new temporary one.
    pub(super) fn new(given: Option<&Path>) -> Result<Self> {
        if let Some(dir) = given {
            return Ok(Self { dir: dir.to_owned(), is_temporary: false });
        }
        let dir = std::env::temp_dir().join(format!("millstream-demo-{}", std::process::id()));
        // Fails if there is something of that name already: then it is not ours.
        fs::create_dir(&dir).map_err(|e| Failure::file("create", &dir, &e))?;
        Ok(Self { dir, is_temporary: true })
    }

    pub(super) fn stream(&self) -> &Path {
        &self.dir
    }

    /// Commands for those who want to see more, if there is something left to see.
    pub(super) fn what_to_look_at(&self, app: &str) -> String {
        if self.is_temporary {
            return String::new();
        }
        let dir = self.dir.display();
        format!(
            "\nLook around:\n  millstream info {dir}\n  millstream tail {dir} -o -3\n  \
             millstream work {dir} --app {app}-again --until-idle --exec 'wc -l'\n"
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let temporary = if self.is_temporary { " (removed at the end)" } else { "" };
        write!(f, "{}{temporary}", self.dir.display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_temporary {
            // A directory in the temporary ones may be left behind; there is nobody to tell.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
