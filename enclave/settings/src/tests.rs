use super::*;

/// Reads `text` with `read`, then refuses what `read` left.
fn read<T>(
    text: &str,
    read: impl FnOnce(&mut Section) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let mut section = Section::parse(text)?;
    let value = read(&mut section)?;
    section.finish()?;
    Ok(value)
}

fn wrong<T>(key: &str, found: &str, expected: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Value {
        key: key.into(),
        found: found.into(),
        expected: expected.into(),
    })
}

fn missing<T>(key: &str, expected: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Missing {
        key: key.into(),
        expected: expected.into(),
    })
}

fn unknown<T>(key: &str, expected: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Unknown {
        key: key.into(),
        expected: expected.into(),
    })
}

#[test]
fn only_toml_is_read() {
    let none = |_: &mut Section| Ok(());
    assert_eq!(read("", none), Ok(()));
    let a = |root: &mut Section| root.integer("a", 0, 0..=9);
    assert_eq!(read("a = 1", a), Ok(1));
    for text in ["a =", "a = 1\na = 1"] {
        assert!(
            matches!(read(text, a), Err(ConfigError::Syntax(_))),
            "{text}"
        );
    }
}

#[test]
fn sections_whose_names_the_file_chooses() {
    let all = |root: &mut Section| {
        let mut numbers = Vec::new();
        for (name, mut section) in root.named_sections("s")? {
            numbers.push((name, section.integer("n", 0, 0..=9)?));
            section.finish()?;
        }
        Ok(numbers)
    };
    assert_eq!(read("", all), Ok(vec![]));
    assert_eq!(
        read("[s.b-1]\nn = 1\n[s.a]", all),
        Ok(vec![("a".into(), 0), ("b-1".into(), 1)])
    );
    assert_eq!(read("[s.a]\nm = 1", all), unknown("s.a.m", "n"));
    assert_eq!(read("s = 1", all), wrong("s", "1", "a table [s]"));
    assert_eq!(read("[s]\na = 1", all), wrong("s.a", "1", "a table [s.a]"));
    for name in ["A", "a b", "", &"a".repeat(33)] {
        let expected = "names of 1 to 32 lower-case letters, digits and `-`";
        assert_eq!(
            read(&format!("[s.{name:?}]"), all),
            wrong("s", &format!("{name:?}"), expected)
        );
    }
}

#[test]
fn a_key_that_nothing_reads_is_refused() {
    let two = |root: &mut Section| {
        let a = root.integer("a", 1, 0..=9)?;
        let mut inner = root.section("inner")?;
        let b = inner.integer("b", 2, 0..=9)?;
        inner.finish()?;
        Ok((a, b))
    };
    assert_eq!(read("a = 3\n[inner]\nb = 4", two), Ok((3, 4)));
    assert_eq!(read("", two), Ok((1, 2)));
    assert_eq!(
        read("aa = 3\n[inner]\nb = 4", two),
        unknown("aa", "a, inner")
    );
    assert_eq!(
        read("a = 3\n[inner]\nbb = 4", two),
        unknown("inner.bb", "b")
    );
    assert_eq!(
        read("a = 3\n[inner.b2]\n[other]", two),
        unknown("inner.b2", "b")
    );
    assert_eq!(read("[other]", two), unknown("other", "a, inner"));
}

#[test]
fn a_missing_key_is_refused_where_there_is_no_default() {
    let text =
        |default: Option<&'static str>| move |root: &mut Section| root.text("name", default, 1..=3);
    assert_eq!(read("name = 'abc'", text(None)), Ok("abc".into()));
    assert_eq!(read("", text(Some("def"))), Ok("def".into()));
    assert_eq!(
        read("", text(None)),
        missing("name", "a text of 1 to 3 bytes without control characters")
    );

    let inner = |root: &mut Section| {
        let mut inner = root.section("inner")?;
        let path = inner.required_path("path")?;
        inner.finish()?;
        Ok(path)
    };
    assert_eq!(read("[inner]\npath = 'p'", inner), Ok("p".into()));
    assert_eq!(read("[inner]", inner), missing("inner.path", "a path"));
    assert_eq!(read("", inner), missing("inner.path", "a path"));

    let optional = |root: &mut Section| root.path("path");
    assert_eq!(read("path = 'p'", optional), Ok(Some("p".into())));
    assert_eq!(read("", optional), Ok(None));

    let parsed = |root: &mut Section| root.parsed("a", "a letter", |text| text.parse().ok());
    assert_eq!(read("a = 'x'", parsed), Ok('x'));
    assert_eq!(read("", parsed), missing("a", "a letter"));
}

#[test]
fn a_value_of_another_type_is_refused() {
    let integer = |root: &mut Section| root.integer("a", 0, 0..=9);
    let whole = "a whole number from 0 to 9";
    assert_eq!(read("a = 7", integer), Ok(7));
    for found in ["\"7\"", "7.0", "true", "[7]"] {
        assert_eq!(
            read(&format!("a = {found}"), integer),
            wrong("a", found, whole)
        );
    }

    let text = |root: &mut Section| root.text("a", Some("t"), 0..=9);
    let plain = "a text of 0 to 9 bytes without control characters";
    assert_eq!(read("a = '7'", text), Ok("7".into()));
    assert_eq!(read("a = 7", text), wrong("a", "7", plain));

    let path = |root: &mut Section| root.path("a");
    let plain = "a text of 1 to 4096 bytes without control characters";
    assert_eq!(read("a = '7'", path), Ok(Some("7".into())));
    assert_eq!(read("a = 7", path), wrong("a", "7", plain));

    let choice = |root: &mut Section| root.choice("a", "1", &["1", "2"]);
    assert_eq!(read("a = '2'", choice), Ok("2".into()));
    assert_eq!(read("", choice), Ok("1".into()));
    assert_eq!(read("a = 2", choice), wrong("a", "2", "one of: 1, 2"));

    let parsed = |root: &mut Section| root.parsed("a", "a digit", |text| text.parse().ok());
    assert_eq!(read("a = '7'", parsed), Ok(7_u8));
    assert_eq!(read("a = 7", parsed), wrong("a", "7", "a digit"));

    let section = |root: &mut Section| root.section("a")?.finish();
    assert_eq!(read("[a]", section), Ok(()));
    assert_eq!(read("a = 7", section), wrong("a", "7", "a table [a]"));
}

#[test]
fn a_value_out_of_bounds_is_refused() {
    let expected = "a whole number from 3 to 5";
    for (number, stands) in [(-3, false), (2, false), (3, true), (5, true), (6, false)] {
        let text = format!("a = {number}");
        let refused = number.to_string();
        let integer = read(&text, |root| root.integer("a", 4, 3..=5));
        let size = read(&text, |root| root.size("a", 4, 3..=5));
        let time = read(&text, |root| root.milliseconds("a", 4, 3..=5));
        if stands {
            assert_eq!(integer, Ok(number as u64));
            assert_eq!(size, Ok(number as usize));
            assert_eq!(time, Ok(Duration::from_millis(number as u64)));
        } else {
            assert_eq!(integer, wrong("a", &refused, expected));
            assert_eq!(size, wrong("a", &refused, expected));
            assert_eq!(time, wrong("a", &refused, expected));
        }
    }

    let text = |root: &mut Section| root.text("a", None, 2..=3);
    let expected = "a text of 2 to 3 bytes without control characters";
    for found in ["\"ab\"", "\"abc\"", "\"\u{e9}\""] {
        let stands = found.trim_matches('"').to_owned();
        assert_eq!(read(&format!("a = {found}"), text), Ok(stands));
    }
    for found in [
        "\"a\"",
        "\"abcd\"",
        "\"\u{e9}\u{e9}\"",
        "\"a\\tb\"",
        "\"a\\u0000\"",
    ] {
        let error = read(&format!("a = {found}"), text).expect_err(found);
        let ConfigError::Value { expected: said, .. } = &error else {
            panic!("{found}: {error}")
        };
        assert_eq!(said, expected, "{found}");
    }

    let path = |root: &mut Section| root.required_path("a");
    let longest = "p".repeat(4_096);
    assert_eq!(
        read(&format!("a = '{longest}'"), path),
        Ok(longest.clone().into())
    );
    for found in ["", "a\\nb", "a\\u0000b", &format!("{longest}p")] {
        let error = read(&format!("a = \"{found}\""), path).expect_err(found);
        assert!(matches!(&error, ConfigError::Value { .. }), "{error}");
    }

    let choice = |root: &mut Section| root.choice("a", "text", &["text", "json"]);
    assert_eq!(read("a = 'json'", choice), Ok("json".into()));
    assert_eq!(
        read("a = 'xml'", choice),
        wrong("a", "\"xml\"", "one of: text, json")
    );

    let parsed = |root: &mut Section| root.parsed("a", "a byte", |text| text.parse().ok());
    assert_eq!(read("a = '255'", parsed), Ok(255_u8));
    assert_eq!(read("a = '256'", parsed), wrong("a", "\"256\"", "a byte"));
}

#[test]
fn an_error_says_where_what_and_what_instead() {
    let inner = |root: &mut Section| {
        let mut inner = root.section("inner")?;
        inner.integer("a", 0, 0..=9)?;
        inner.required_path("b")?;
        inner.finish()
    };
    assert_eq!(read("[inner]\na = 9\nb = 'p'", inner), Ok(()));
    for (text, says) in [
        (
            "[inner]\na = 10\nb = 'p'",
            "key `inner.a`: found 10, expected a whole number from 0 to 9",
        ),
        (
            "[inner]\na = 9",
            "key `inner.b` is missing; expected a path",
        ),
        (
            "[inner]\nb = 'p'\nc = 1",
            "unknown key `inner.c`; expected one of: a, b",
        ),
    ] {
        assert_eq!(read(text, inner).unwrap_err().to_string(), says);
    }
    let error = read("a", inner).unwrap_err().to_string();
    assert!(error.starts_with("not a TOML file: "), "{error}");
}

#[test]
fn booleans_and_lists_are_of_their_kind() {
    let boolean = |root: &mut Section| root.boolean("a", true);
    assert_eq!(read("", boolean), Ok(true));
    assert_eq!(read("a = false", boolean), Ok(false));
    assert_eq!(
        read("a = 'false'", boolean),
        wrong("a", "\"false\"", "true or false")
    );

    let list = |root: &mut Section| root.list("a", "bytes", 2, |text| text.parse().ok());
    assert_eq!(read("a = []", list), Ok(Vec::<u8>::new()));
    assert_eq!(read("a = ['1', '2']", list), Ok(vec![1, 2]));
    let expected = "a list of at most 2: bytes";
    for (text, found) in [
        ("a = ['1', '2', '3']", "[\"1\", \"2\", \"3\"]"),
        ("a = ['256']", "[\"256\"]"),
        ("a = [1]", "[1]"),
        ("a = '1'", "\"1\""),
    ] {
        assert_eq!(read(text, list), wrong("a", found, expected));
    }
    assert!(matches!(read("", list), Err(ConfigError::Missing { .. })));
}
