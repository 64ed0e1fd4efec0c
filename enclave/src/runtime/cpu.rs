//! The CPU's features, for the configuration object: ONNX Runtime chooses its kernels by them, and
//! different kernels round differently.

/// Detected features out of those that the runtime's kernels are chosen by, sorted.
#[cfg(target_arch = "x86_64")]
pub(super) fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),* $(,)?) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    let mut features: Vec<&'static str> = detected![
        "avx",
        "avx2",
        "avx512bf16",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512fp16",
        "avx512vl",
        "avx512vnni",
        "avxvnni",
        "f16c",
        "fma",
        "sse4.1",
    ]
    .into_iter()
    .chain(amx())
    .filter_map(|(name, found)| found.then_some(name))
    .collect();
    features.sort_unstable();
    features
}

/// The standard library's own detection of AMX is not stable yet: CPUID leaf 7, EDX.
#[cfg(target_arch = "x86_64")]
fn amx() -> [(&'static str, bool); 3] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let bits = if __cpuid(0).eax >= 7 {
        __cpuid_count(7, 0).edx
    } else {
        0
    };
    [("amx-bf16", 22), ("amx-tile", 24), ("amx-int8", 25)]
        .map(|(name, bit)| (name, bits >> bit & 1 == 1))
}

/// On other architectures nothing is looked at yet; the library's digest names the build.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn features() -> Vec<&'static str> {
    Vec::new()
}
