//! README's example is the one that is compiled as this crate's documentation.

use std::path::Path;

#[test]
fn readmes_example_is_the_one_that_is_compiled() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(here.join(path)).unwrap();
    let block = |text: &str, fence: &str| -> Vec<String> {
        let (_, rest) = text.split_once(fence).expect(fence);
        let (block, _) = rest.split_once("```").unwrap();
        block.lines().skip(1).map(str::to_owned).collect()
    };
    let documentation: String = read("src/lib.rs")
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let compiled = block(&documentation, "```no_run");
    assert!(compiled.len() > 5);
    assert_eq!(block(&read("../../README.md"), "```rust"), compiled);
}
