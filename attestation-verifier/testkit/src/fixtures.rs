//! Real evidence and models that lie outside the repository, and how a test says that it did not run.

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
    folder("TOUCHSTONE_FIXTURES", "../shared/fixtures")
}

/// The folder with ONNX models: `TOUCHSTONE_MODELS`, else `../shared/models` beside the workspace.
pub fn models() -> Option<PathBuf> {
    folder("TOUCHSTONE_MODELS", "../shared/models")
}

/// The line that a skipped test prints on stderr. `scripts/test` counts these lines, so it goes past the test runner, which
/// would keep what a passing test prints to itself.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

fn folder(variable: &str, beside: &str) -> Option<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => workspace_root().join(beside),
    };
    path.is_dir().then_some(path)
}
