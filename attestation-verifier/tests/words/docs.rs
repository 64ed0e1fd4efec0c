//! The guide's example is the one that is compiled in the library's documentation.

#[test]
fn the_example_for_clients_is_the_compiled_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (guide, library) = (read("../docs/clients.md"), read("src/lib.rs"));
    let after = guide
        .split("compiled and run:\n")
        .nth(1)
        .expect("the example");
    let block = after
        .split("```rust,ignore\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let shown: Vec<&str> = block.lines().filter(|line| !line.is_empty()).collect();
    let example = library.split("//! ```\n").nth(1).expect("the example");
    let compiled: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| !line.starts_with("# "))
        .collect();
    assert!(shown.len() > 8);
    assert_eq!(shown, compiled);
}
