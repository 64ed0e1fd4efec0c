//! Mutants of bytes and of JSON files, for tests that show that *nothing* slips through.
//!
//! These mutants are not re-signed: they show that every byte is covered by a check. For lies that carry good
//! signatures see [`crate::mint`].

use serde_json::Value;

/// Calls `check` with every single-bit flip of `bytes`: (bit number, mutant). Bit 0 is the lowest bit of the first byte. One
/// buffer is used for all.
pub fn for_each_bit_flip(bytes: &[u8], check: impl FnMut(usize, &[u8])) {
    for_each_bit_flip_of(bytes, 0..bytes.len() * 8, check);
}

/// As [`for_each_bit_flip`], for the bits in `bits` only; `(0..n).step_by(7)` is a sample.
pub fn for_each_bit_flip_of(
    bytes: &[u8],
    bits: impl IntoIterator<Item = usize>,
    mut check: impl FnMut(usize, &[u8]),
) {
    let mut mutant = bytes.to_vec();
    for bit in bits {
        mutant[bit / 8] ^= 1 << (bit % 8);
        check(bit, &mutant);
        mutant[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Every strict prefix, from nothing at all to all but the last byte.
pub fn truncations(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    (0..bytes.len()).map(|n| &bytes[..n])
}

/// What is done to one member or element of a JSON document.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// It goes.
    Delete,
    /// It gets this value.
    Replace(Value),
    /// It stands twice, one after the other.
    Duplicate,
    /// Its name gets a letter more (members only; an element of an array stays as it is).
    Rename,
    /// An unknown member is put before it (members only).
    Insert,
}

/// A mutant of a JSON document.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonMutant {
    /// Where, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What was done there.
    pub edit: Edit,
    /// The document, written as the original was: members in their order, no white space, a newline at the end.
    pub file: Vec<u8>,
}

/// Applies one edit at one place of a JSON file (one line, newline at the end).
///
/// # Panics
/// When the file is not JSON or there is nothing at `pointer`: a mutant that changes nothing tests nothing.
pub fn edit_json(file: &[u8], pointer: &str, edit: &Edit) -> Vec<u8> {
    let document: Value = serde_json::from_slice(file).expect("a JSON document");
    assert!(
        !pointer.is_empty() && document.pointer(pointer).is_some(),
        "nothing at {pointer:?}"
    );
    let mut out = String::new();
    write(&document, "", pointer, edit, &mut out);
    out.push('\n');
    out.into_bytes()
}

/// Every edit that makes sense at every place of a JSON file: each member and element deleted, doubled, renamed, preceded by an unknown
/// member, set to null, to an empty container, and to a neighbouring value of its own kind. Places at or below a pointer in
/// `except` are left alone.
///
/// # Panics
/// When the file is not JSON.
pub fn json_mutants(file: &[u8], except: &[&str]) -> Vec<JsonMutant> {
    let document: Value = serde_json::from_slice(file).expect("a JSON document");
    let mut places = Vec::new();
    collect(&document, "", except, &mut places);
    let mut mutants = Vec::new();
    for (pointer, value, is_member) in places {
        let mut edits = vec![Edit::Delete, Edit::Duplicate];
        if is_member {
            edits.extend([Edit::Rename, Edit::Insert]);
        }
        edits.extend(neighbours(value).into_iter().map(Edit::Replace));
        for edit in edits {
            let mut out = String::new();
            write(&document, "", &pointer, &edit, &mut out);
            out.push('\n');
            mutants.push(JsonMutant {
                pointer: pointer.clone(),
                edit,
                file: out.into_bytes(),
            });
        }
    }
    mutants
}

/// Values near this one, none of them equal to it.
fn neighbours(value: &Value) -> Vec<Value> {
    let mut out = match value {
        Value::Null => vec![Value::from(0)],
        Value::Bool(b) => vec![Value::from(!b)],
        Value::Number(n) => match n.as_i64() {
            Some(n) => vec![
                Value::from(n + 1),
                Value::from(n.to_string()),
                Value::from(n as f64 + 0.5),
            ],
            None => vec![Value::from(0)],
        },
        Value::String(text) => text_neighbours(text).into_iter().map(Value::from).collect(),
        Value::Array(items) if !items.is_empty() => vec![Value::Array(Vec::new())],
        Value::Object(members) if !members.is_empty() => vec![Value::Object(Default::default())],
        Value::Array(_) => vec![Value::from("x")],
        Value::Object(_) => vec![Value::from("x")],
    };
    out.push(Value::Null);
    out.retain(|other| other != value);
    out
}

/// Texts near this one: one character replaced by another of its alphabet, one gone, one more, the case changed.
fn text_neighbours(text: &str) -> Vec<String> {
    let mut out = vec![String::new(), format!("{text} "), text.to_uppercase()];
    let mut characters: Vec<char> = text.chars().collect();
    if let Some(middle) = characters.get_mut(text.chars().count() / 2) {
        *middle = match *middle {
            '0'..='8' | 'a'..='e' => char::from(*middle as u8 + 1),
            _ => '0',
        };
        out.push(characters.iter().collect());
        characters.pop();
        out.push(characters.iter().collect());
    }
    out
}

fn collect<'a>(
    value: &'a Value,
    at: &str,
    except: &[&str],
    out: &mut Vec<(String, &'a Value, bool)>,
) {
    let children: Vec<(String, &Value, bool)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, v)| (join(at, name), v, true))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(n, v)| (join(at, &n.to_string()), v, false))
            .collect(),
        _ => return,
    };
    for (pointer, child, is_member) in children {
        if except.contains(&pointer.as_str()) {
            continue;
        }
        out.push((pointer.clone(), child, is_member));
        collect(child, &pointer, except, out);
    }
}

fn join(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Writes compact JSON, with the edit where it belongs.
fn write(value: &Value, at: &str, pointer: &str, edit: &Edit, out: &mut String) {
    let mut parts: Vec<String> = Vec::new();
    let mut child = |name: Option<&str>, key: String, value: &Value| {
        let place = join(at, &key);
        let part = |name: Option<&str>, value: &Value| {
            let mut text = name
                .map(|n| format!("{}:", Value::from(n)))
                .unwrap_or_default();
            write(value, &place, pointer, edit, &mut text);
            text
        };
        if place != pointer {
            return parts.push(part(name, value));
        }
        match edit {
            Edit::Delete => {}
            Edit::Replace(other) => parts.push(part(name, other)),
            Edit::Duplicate => parts.extend([part(name, value), part(name, value)]),
            Edit::Rename => parts.push(part(name.map(|n| format!("{n}x")).as_deref(), value)),
            Edit::Insert => {
                // Sorted before its neighbour, so that only its being unknown is wrong: "catalog" → "catalo~".
                let unknown = name.map(|n| {
                    let mut unknown = n.to_owned();
                    let last = unknown
                        .pop()
                        .map_or('0', |c| char::from((c as u8).saturating_sub(1)));
                    unknown.push(last);
                    unknown
                });
                parts.extend(unknown.map(|n| part(Some(&n), &Value::Null)));
                parts.push(part(name, value));
            }
        }
    };
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, v)| child(Some(name), name.clone(), v));
            *out += &format!("{{{}}}", parts.join(","));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(n, v)| child(None, n.to_string(), v));
            *out += &format!("[{}]", parts.join(","));
        }
        leaf => *out += &leaf.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flips_change_one_bit_and_truncations_are_prefixes() {
        let bytes = [0u8, 0xff, 7];
        let mut seen = Vec::new();
        for_each_bit_flip(&bytes, |bit, mutant| {
            let changed: u32 = bytes
                .iter()
                .zip(mutant)
                .map(|(a, b)| (a ^ b).count_ones())
                .sum();
            assert_eq!(changed, 1);
            assert_eq!(mutant[bit / 8] ^ bytes[bit / 8], 1 << (bit % 8));
            seen.push(mutant.to_vec());
        });
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 24);
        let mut sampled = 0;
        for_each_bit_flip_of(&bytes, (0..24).step_by(7), |_, _| sampled += 1);
        assert_eq!(sampled, 4);
        assert_eq!(
            truncations(&bytes).map(<[u8]>::len).collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    #[test]
    fn edits_do_what_they_say() {
        let file = b"{\"a\":[1,{\"b\":\"x/y\"}],\"c\":null}\n";
        let edit =
            |pointer: &str, edit: Edit| String::from_utf8(edit_json(file, pointer, &edit)).unwrap();
        assert_eq!(edit("/c", Edit::Delete), "{\"a\":[1,{\"b\":\"x/y\"}]}\n");
        assert_eq!(
            edit("/a/1/b", Edit::Replace(json!(2))),
            "{\"a\":[1,{\"b\":2}],\"c\":null}\n"
        );
        assert_eq!(
            edit("/a/0", Edit::Duplicate),
            "{\"a\":[1,1,{\"b\":\"x/y\"}],\"c\":null}\n"
        );
        assert_eq!(
            edit("/a/1/b", Edit::Duplicate),
            "{\"a\":[1,{\"b\":\"x/y\",\"b\":\"x/y\"}],\"c\":null}\n"
        );
        assert_eq!(
            edit("/c", Edit::Rename),
            "{\"a\":[1,{\"b\":\"x/y\"}],\"cx\":null}\n"
        );
        assert_eq!(
            edit("/c", Edit::Insert),
            "{\"a\":[1,{\"b\":\"x/y\"}],\"b\":null,\"c\":null}\n"
        );
    }

    #[test]
    fn all_mutants_differ_from_the_original_and_leave_exceptions_alone() {
        let file = b"{\"a\":[1,{\"b\":\"00ff\"}],\"view\":{\"z\":1}}\n";
        let mutants = json_mutants(file, &["/view"]);
        assert!(mutants.len() > 20);
        for mutant in &mutants {
            assert_ne!(mutant.file, file, "{} {:?}", mutant.pointer, mutant.edit);
            assert!(mutant.file.ends_with(b"\"view\":{\"z\":1}}\n"));
            // Still JSON: what refuses it must be a rule of ours.
            serde_json::from_slice::<Value>(&mutant.file).unwrap();
        }
    }
}
