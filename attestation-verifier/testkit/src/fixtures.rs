//! Where test data lies, in the repository and outside, and how a test says that it did not run.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The root of the workspace this crate was built in.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The folder with real reports, quotes and certificates: the environment variable
/// `TOUCHSTONE_FIXTURES`, else `../shared/fixtures` beside the workspace. `None` when it is not there.
pub fn evidence() -> Option<PathBuf> {
    let path = match std::env::var_os("TOUCHSTONE_FIXTURES") {
        Some(path) => PathBuf::from(path),
        None => workspace_root().join("../shared/fixtures"),
    };
    path.is_dir().then_some(path)
}

/// The project's own small models, in repository layout under `models`, and rows of data that none
/// was trained on, under `held-out`.
pub fn test_data() -> PathBuf {
    workspace_root().join("enclave/tests/data")
}

/// The line that a skipped test prints on stderr. `scripts/test` counts these lines, so it goes past the test runner, which
/// would keep what a passing test prints to itself.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}
