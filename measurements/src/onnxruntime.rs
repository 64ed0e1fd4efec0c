//! The pinned ONNX Runtime: Microsoft's own build, as PyPI's wheel carries it.

use touchstone_formats::digest::Digest;

/// The wheel's name on PyPI and the runtime's name in configuration objects.
pub const NAME: &str = "onnxruntime";

/// The pinned version.
pub const VERSION: &str = "1.31.1";

/// SHA-256 of the shared library, the file that the enclave loads.
pub const LIBRARY_SHA256: &str = "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3";

/// SHA-256 of the wheel that it is taken out of.
pub const WHEEL_SHA256: &str = "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f";

/// The version of the runtime whose library has this digest, if it is the pinned one.
pub fn version_of(library: Digest) -> Option<&'static str> {
    (library.to_string() == LIBRARY_SHA256).then_some(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIREMENTS: &str = include_str!("../onnxruntime/requirements.txt");
    const LIBRARY: &str = include_str!("../onnxruntime/library.sha256");

    #[test]
    fn what_scripts_read_and_what_programs_read_is_the_same() {
        let written: Vec<&str> = REQUIREMENTS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .filter(|word| *word != "\\")
            .collect();
        assert_eq!(
            written,
            [
                format!("{NAME}=={VERSION}"),
                format!("--hash=sha256:{WHEEL_SHA256}")
            ]
        );
        assert_eq!(LIBRARY, format!("{LIBRARY_SHA256}  libonnxruntime.so\n"));
    }

    #[test]
    fn only_the_pinned_library_has_the_pinned_version() {
        let pinned = Digest::from_hex(LIBRARY_SHA256).expect("the constant is a digest");
        assert_eq!(version_of(pinned), Some(VERSION));
        assert_eq!(version_of(Digest::of(b"another library")), None);
    }
}
