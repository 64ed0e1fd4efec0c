use super::*;

const EXAMPLE: &str = include_str!("../../enclave.example.toml");

/// The smallest file that stands.
const SMALL: &str = r#"
name = "enclave.example"
log_prefix = "enclave.example/log"
[listen]
public = "tcp://127.0.0.1:8000"
control = "vsock://:8001"
[quote]
agent = "/run/agent.sock"
[runtime]
library = "lib.so"
sha256 = "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"
[models]
repository = "models"
"#;

/// The small file with one value replaced or added. `at` is `section.key` or `key`.
fn changed(at: &str, value: &str) -> String {
    let mut table: toml::Table = SMALL.parse().unwrap();
    let value: toml::Table = format!("value = {value}").parse().unwrap();
    let (section, key) = at.rsplit_once('.').unwrap_or(("", at));
    let target = match section {
        "" => &mut table,
        section => table
            .entry(section)
            .or_insert_with(|| toml::Table::new().into())
            .as_table_mut()
            .unwrap(),
    };
    target.insert(key.into(), value["value"].clone());
    table.to_string()
}

fn jcs(config: &Config) -> String {
    let object = touchstone_formats::jcs::to_vec(&config.object(&[])).unwrap();
    touchstone_formats::jcs::check(&object).unwrap();
    String::from_utf8(object).unwrap()
}

#[test]
fn the_example_stands_and_says_what_the_defaults_are() {
    let as_shipped = Config::parse(EXAMPLE).unwrap();
    // Every line that is commented out is a key with its default.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(uncommented, EXAMPLE);
    let spelled_out = Config::parse(&uncommented).unwrap();
    let mut expected = as_shipped.object(&[]);
    // Two defaults follow the machine.
    expected["threads"] = 4.into();
    expected["models"]["sessions"] = 4.into();
    assert_eq!(spelled_out.object(&[]), expected);
}

#[test]
fn every_setting_is_in_the_example() {
    let object = Config::parse(EXAMPLE).unwrap().object(&[]);
    for (section, value) in &object {
        let keys: Vec<&String> = match value {
            Value::Object(members) => members.keys().collect(),
            _ if section == "v" || section == "arguments" => continue,
            _ => vec![section],
        };
        for key in keys {
            let stands = EXAMPLE.lines().any(|line| {
                line.trim_start_matches('#')
                    .starts_with(&format!("{key} = "))
            });
            assert!(stands, "{section}.{key} is not in the example");
        }
    }
}

#[test]
fn every_setting_changes_the_digest() {
    let base = jcs(&Config::parse(SMALL).unwrap());
    let digest = format!("\"{}\"", Digest::of(b"another library"));
    for (at, value) in [
        ("name", "\"other\""),
        ("log_prefix", "\"other/log\""),
        ("threads", "77"),
        ("listen.public", "\"tcp://[::1]:8000\""),
        ("listen.control", "\"vsock://3:8001\""),
        ("listen.tls", "\"vsock://:8002\""),
        ("keyset.lifetime_seconds", "1000"),
        ("keyset.rotate_before_seconds", "7"),
        ("answers.default_guarantees", "\"signed\""),
        ("answers.max_wait_seconds", "7"),
        ("quote.agent", "\"/other\""),
        ("quote.timeout_ms", "7"),
        ("quote.retries", "7"),
        ("quote.queue", "7"),
        ("quote.sessions", "7"),
        ("seal.interval_ms", "7"),
        ("seal.max_entries", "77"),
        ("limits.body_bytes", "7777"),
        ("limits.buffered_bytes", "777777777"),
        ("limits.header_bytes", "9999"),
        ("limits.headers", "77"),
        ("limits.header_timeout_ms", "77"),
        ("limits.body_timeout_ms", "77"),
        ("limits.write_timeout_ms", "77"),
        ("limits.connections", "77"),
        ("limits.control_connections", "77"),
        ("limits.in_flight", "77"),
        ("limits.ohttp_requests", "77"),
        ("limits.unacknowledged_bytes", "777777"),
        ("limits.drain_ms", "77"),
        ("runtime.library", "\"other.so\""),
        ("runtime.sha256", digest.as_str()),
        ("models.repository", "\"other\""),
        ("models.reload_seconds", "7"),
        ("models.sessions", "77"),
        ("models.waiting", "7"),
        ("models.acquire_timeout_ms", "7"),
        ("sandbox.seccomp", "true"),
        ("log.filter", "\"warn\""),
        ("log.format", "\"json\""),
    ] {
        let config =
            Config::parse(&changed(at, value)).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_ne!(jcs(&config), base, "{at}");
    }
    let config = Config::parse(SMALL).unwrap();
    assert_ne!(config.object(&["--config".into()]), config.object(&[]));
}

/// The small file with another quote source, and these lines in its section.
fn with_source(lines: &str) -> String {
    SMALL.replace("agent = \"/run/agent.sock\"", lines)
}

#[test]
fn every_setting_of_the_kernels_quote_sources_changes_the_digest() {
    let mut seen = std::collections::BTreeSet::from([jcs(&Config::parse(SMALL).unwrap())]);
    for (source, settings) in [
        (
            "tsm",
            &[
                "",
                "tsm = \"/other\"",
                "entry = \"other\"",
                "privilege = 0",
                "privilege = 3",
                "event_log = \"/sys/firmware/acpi/tables/data/CCEL\"",
                "event_log = \"/other\"",
                "timeout_ms = 7",
            ][..],
        ),
        (
            "sev-guest",
            &["", "device = \"/other\"", "privilege = 0", "privilege = 1"],
        ),
    ] {
        for setting in settings {
            let text = with_source(&format!("source = \"{source}\"\n{setting}"));
            let config = Config::parse(&text).unwrap_or_else(|error| panic!("{setting}: {error}"));
            assert!(seen.insert(jcs(&config)), "{source}: {setting}");
        }
    }
}

#[test]
fn the_example_has_the_keys_of_the_kernels_quote_sources_with_their_defaults() {
    for source in ["tsm", "sev-guest"] {
        let of_source = EXAMPLE
            .split(&format!("# \"{source}\":"))
            .nth(1)
            .unwrap()
            .lines()
            .take_while(|line| *line != "#");
        let keys: String = of_source
            .filter(|line| line.starts_with("#    ") && line.contains(" = "))
            .flat_map(|line| [&line[5..], "\n"])
            .collect();
        let head = format!("source = \"{source}\"");
        let bare = Config::parse(&with_source(&head)).unwrap().object(&[]);
        let mut shown = Config::parse(&with_source(&format!("{head}\n{keys}"))).unwrap();
        let shown_keys = shown.object(&[])["quote"].as_object().unwrap().clone();
        for (key, value) in &shown_keys {
            let generic = ["source", "timeout_ms", "retries", "queue", "sessions"];
            assert!(
                generic.contains(&key.as_str()) || keys.contains(&format!("{key} = ")),
                "{source}: {key} is not in the example"
            );
            assert!(!value.is_null(), "{source}: {key}");
        }
        // These two say what could stand there.
        match &mut shown.quote.source {
            QuoteSourceConfig::Kernel(KernelQuotes::Tsm {
                privilege,
                event_log,
                ..
            }) => (*privilege, *event_log) = (None, None),
            QuoteSourceConfig::Kernel(KernelQuotes::SevGuest { privilege, .. }) => {
                *privilege = None;
            }
            QuoteSourceConfig::Agent(_) => panic!("{source}"),
        }
        assert_eq!(shown.object(&[]), bare);
    }
}

#[test]
fn a_quote_source_has_its_own_keys_and_no_others() {
    for (lines, stands, refused) in [
        ("source = \"tsm\"", "entry = \"a\"", "agent = \"/a\""),
        ("source = \"tsm\"", "tsm = \"/a\"", "device = \"/a\""),
        ("source = \"sev-guest\"", "device = \"/a\"", "tsm = \"/a\""),
        (
            "source = \"sev-guest\"",
            "privilege = 3",
            "event_log = \"/a\"",
        ),
        ("agent = \"/a\"", "source = \"agent\"", "privilege = 0"),
    ] {
        let file = |more| Config::parse(&with_source(&format!("{lines}\n{more}")));
        file(stands).unwrap();
        let error = file(refused).expect_err(refused);
        let named = refused.split(' ').next().unwrap();
        assert!(
            matches!(&error, ConfigError::Unknown { key, .. } if *key == format!("quote.{named}")),
            "{error}"
        );
    }
    for (value, expected) in [
        ("entry = \"\"", "1 to 64"),
        ("entry = \"a/b\"", "1 to 64"),
        ("entry = \"..\"", "1 to 64"),
        ("privilege = 4", "from 0 to 3"),
        ("privilege = -1", "from 0 to 3"),
        ("tsm = \"\"", "1 to 4096 bytes"),
    ] {
        let text = with_source(&format!("source = \"tsm\"\n{value}"));
        let error = Config::parse(&text).expect_err(value);
        assert!(error.to_string().contains(expected), "{value}: {error}");
    }
}

#[test]
fn a_bad_value_is_named_with_what_was_found_and_what_is_expected() {
    Config::parse(SMALL).unwrap();
    for (at, value, expected) in [
        ("name", "\"\"", "1 to 256 bytes"),
        ("name", "7", "1 to 256 bytes"),
        ("name", "\"a\\nb\"", "control characters"),
        ("log_prefix", "\"a b\"", "schema-less URL"),
        ("log_prefix", "\"a+b\"", "schema-less URL"),
        ("log_prefix", "\"a/\"", "schema-less URL"),
        ("threads", "0", "from 1 to 1024"),
        ("listen.public", "\"127.0.0.1:8000\"", "tcp://"),
        ("listen.public", "\"tcp://localhost:8000\"", "tcp://"),
        ("listen.public", "\"tcp://127.0.0.1\"", "tcp://"),
        ("listen.public", "\"vsock://x:1\"", "vsock://"),
        ("listen.public", "\"vsock://:+1\"", "vsock://"),
        ("listen.public", "8000", "tcp://"),
        ("listen.tls", "\"127.0.0.1:8002\"", "tcp://"),
        ("listen.tls", "false", "tcp://"),
        ("keyset.lifetime_seconds", "1", "from 2 to"),
        ("keyset.rotate_before_seconds", "86400", "from 1 to 86399"),
        (
            "answers.default_guarantees",
            "\"certain\"",
            "logged quoted signed",
        ),
        (
            "answers.default_guarantees",
            "\"proven\"",
            "logged quoted signed",
        ),
        (
            "answers.default_guarantees",
            "\"recomputed signed\"",
            "logged quoted signed",
        ),
        ("answers.default_guarantees", "[\"signed\"]", "text"),
        ("answers.max_wait_seconds", "301", "from 0 to 300"),
        ("quote.source", "\"magic\"", "one of: agent, tsm, sev-guest"),
        ("quote.timeout_ms", "0", "from 1 to"),
        ("quote.retries", "-1", "from 0 to 100"),
        ("quote.queue", "0", "from 1 to"),
        ("quote.sessions", "0", "from 1 to 65536"),
        ("quote.sessions", "65537", "from 1 to 65536"),
        ("seal.interval_ms", "10001", "from 1 to 10000"),
        ("seal.max_entries", "15", "from 16 to"),
        ("limits.body_bytes", "1.5", "whole number"),
        ("limits.buffered_bytes", "1000", "from 16777216 to"),
        ("limits.header_bytes", "100", "from 8192 to"),
        ("limits.connections", "true", "whole number"),
        ("runtime.sha256", "\"FC44\"", "64 lower-case hex"),
        ("models.repository", "\"\"", "1 to 4096 bytes"),
        ("models.sessions", "257", "from 1 to 256"),
        ("sandbox.seccomp", "\"true\"", "true or false"),
        ("log.filter", "\"enclave=loud\"", "tracing filter"),
        ("log.format", "\"xml\"", "one of: text, json"),
    ] {
        let error = Config::parse(&changed(at, value)).expect_err(at);
        let ConfigError::Value {
            key,
            found,
            expected: said,
        } = &error
        else {
            panic!("{at}: {error}")
        };
        assert_eq!(key, at);
        assert!(said.contains(expected), "{at}: {error}");
        let bare = value
            .trim_matches(|c| "\"[]".contains(c))
            .replace("\\n", "\n");
        assert!(
            found.contains(&bare) || found.contains("\\n"),
            "{at}: {error}"
        );
    }
}

#[test]
fn unknown_and_missing_keys_are_named() {
    for (at, key) in [
        ("nmae", "nmae"),
        ("limits.bodybytes", "limits.bodybytes"),
        ("quote.retry", "quote.retry"),
        ("extra.key", "extra"),
    ] {
        let error = Config::parse(&changed(at, "1")).expect_err(at);
        let ConfigError::Unknown {
            key: named,
            expected,
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(named, key);
        assert!(!expected.is_empty(), "{error}");
    }
    for line in SMALL.lines().filter(|line| line.contains(" = ")) {
        let key = line.split(" = ").next().unwrap();
        let error = Config::parse(&SMALL.replace(line, "")).expect_err(line);
        let ConfigError::Missing { key: named, .. } = &error else {
            panic!("{error}")
        };
        assert!(named.ends_with(key), "{error}");
    }
    assert!(matches!(
        Config::parse("name = "),
        Err(ConfigError::Syntax(_))
    ));
    let twice = format!("name = \"a\"\n{SMALL}");
    assert!(matches!(Config::parse(&twice), Err(ConfigError::Syntax(_))));
    let no_table = SMALL.replace("[quote]\nagent = \"/run/agent.sock\"\n", "");
    let no_table = format!("quote = 7\n{no_table}");
    assert!(
        matches!(Config::parse(&no_table), Err(ConfigError::Value { key, .. }) if key == "quote")
    );
}

#[test]
fn addresses_are_written_as_they_are_read() {
    for text in [
        "tcp://127.0.0.1:8000",
        "tcp://[::1]:0",
        "vsock://:8080",
        "vsock://3:4294967295",
    ] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "tcp://",
        "vsock://",
        "vsock://3",
        "vsock://:",
        "vsock://4294967296:1",
        "http://127.0.0.1:1",
    ] {
        assert_eq!(text.parse::<Address>(), Err(()), "{text}");
    }
}
