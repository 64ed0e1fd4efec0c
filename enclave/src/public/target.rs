//! Request targets. Names of models hold no byte that would need percent-encoding, so an encoded
//! byte is refused instead of decoded: one resource has one spelling, and what the receipt's
//! request digest is over is what was meant.

use hyper::Uri;
use touchstone_formats::digest::Digest;

use crate::problem::Problem;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models/…`
    Model(ModelTarget),
    /// `/v1/keyset`
    Keyset,
    /// `/v1/objects/<64 hex>`
    Object(Digest),
    /// `/v1/receipts/<id>`: the host's.
    Receipt,
    /// `/v1/session`
    Session,
    /// `/v1/boot`
    Boot,
    /// `/v1/ohttp`
    Ohttp,
}

/// `/v2/models/<name>[/versions/<version>][/ready|/infer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelTarget {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Metadata,
    Ready,
    Infer,
}

impl Target {
    /// Reads a request target.
    ///
    /// # Errors
    /// 400 for a target that is not in origin form, has a query where none belongs, or has encoded
    /// bytes; 404 for one that names nothing.
    pub(super) fn parse(uri: &Uri) -> Result<Self, Problem> {
        if uri.scheme().is_some() || uri.authority().is_some() {
            return Err(bad(
                "the request target must be a path, such as /v2/models/NAME/infer",
            ));
        }
        let path = uri.path();
        if path.contains('%') {
            return Err(bad(
                "percent-encoded bytes are refused: no name here needs them",
            ));
        }
        if uri.query().is_some() {
            return Err(bad("a query is refused: no target here has one"));
        }
        let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
        let mut next = || parts.next();
        let (a, b, c, d, e, f, rest) = (next(), next(), next(), next(), next(), next(), next());
        if rest.is_some() {
            return Err(unknown());
        }
        let verb = |word: Option<&str>| match word {
            None => Ok(Verb::Metadata),
            Some("ready") => Ok(Verb::Ready),
            Some("infer") => Ok(Verb::Infer),
            Some(_) => Err(unknown()),
        };
        match (a, b, c, d, e, f) {
            (Some("v2"), None, ..) => Ok(Self::Server),
            // Some clients ask for the server's document with a slash at the end.
            (Some("v2"), Some(""), None, ..) => Ok(Self::Server),
            (Some("v2"), Some("health"), Some("live"), None, ..) => Ok(Self::Live),
            (Some("v2"), Some("health"), Some("ready"), None, ..) => Ok(Self::Ready),
            (Some("v2"), Some("models"), Some(name), Some("versions"), Some(version), last)
                if !name.is_empty() && !version.is_empty() =>
            {
                Ok(Self::Model(ModelTarget {
                    name: name.into(),
                    version: Some(version.into()),
                    verb: verb(last)?,
                }))
            }
            (Some("v2"), Some("models"), Some(name), last, None, None) if !name.is_empty() => {
                Ok(Self::Model(ModelTarget {
                    name: name.into(),
                    version: None,
                    verb: verb(last)?,
                }))
            }
            (Some("v1"), Some("keyset"), None, ..) => Ok(Self::Keyset),
            (Some("v1"), Some("objects"), Some(digest), None, ..) => Digest::from_hex(digest)
                .map(Self::Object)
                .map_err(|_| bad("a digest is 64 lower-case hex digits")),
            (Some("v1"), Some("receipts"), Some(_), None, ..) => Ok(Self::Receipt),
            (Some("v1"), Some("session"), None, ..) => Ok(Self::Session),
            (Some("v1"), Some("boot"), None, ..) => Ok(Self::Boot),
            (Some("v1"), Some("ohttp"), None, ..) => Ok(Self::Ohttp),
            _ => Err(unknown()),
        }
    }

    /// The methods that it answers to.
    pub(super) fn methods(&self) -> &'static str {
        if self.is_posted() {
            "POST, OPTIONS"
        } else {
            "GET, HEAD, OPTIONS"
        }
    }

    /// Whether it is for POST, and not for GET and HEAD.
    pub(super) fn is_posted(&self) -> bool {
        let infer = |target: &ModelTarget| target.verb == Verb::Infer;
        matches!(self, Self::Session | Self::Boot | Self::Ohttp)
            || matches!(self, Self::Model(target) if infer(target))
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(400, "Bad request target", detail)
}

fn unknown() -> Problem {
    Problem::new(404, "Unknown target", "nothing is here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str) -> Result<Target, u16> {
        Target::parse(&target.parse().unwrap()).map_err(|problem| problem.status)
    }

    fn model(name: &str, version: Option<&str>, verb: Verb) -> Result<Target, u16> {
        Ok(Target::Model(ModelTarget {
            name: name.into(),
            version: version.map(Into::into),
            verb,
        }))
    }

    #[test]
    fn targets_of_the_protocol() {
        assert_eq!(parse("/v2"), Ok(Target::Server));
        assert_eq!(parse("/v2/"), Ok(Target::Server));
        assert_eq!(parse("/v2/health/live"), Ok(Target::Live));
        assert_eq!(parse("/v2/health/ready"), Ok(Target::Ready));
        assert_eq!(parse("/v2/models/m"), model("m", None, Verb::Metadata));
        assert_eq!(parse("/v2/models/m/ready"), model("m", None, Verb::Ready));
        assert_eq!(parse("/v2/models/m/infer"), model("m", None, Verb::Infer));
        assert_eq!(
            parse("/v2/models/m/versions/3"),
            model("m", Some("3"), Verb::Metadata)
        );
        assert_eq!(
            parse("/v2/models/m/versions/3/ready"),
            model("m", Some("3"), Verb::Ready)
        );
        assert_eq!(
            parse("/v2/models/m/versions/3/infer"),
            model("m", Some("3"), Verb::Infer)
        );
        // A model may be called so.
        assert_eq!(
            parse("/v2/models/versions/infer"),
            model("versions", None, Verb::Infer)
        );
        assert_eq!(parse("/v1/keyset"), Ok(Target::Keyset));
        assert_eq!(
            parse(&format!("/v1/objects/{}", Digest::ZERO)),
            Ok(Target::Object(Digest::ZERO))
        );
        assert_eq!(parse("/v1/receipts/00"), Ok(Target::Receipt));
        assert_eq!(parse("/v1/session"), Ok(Target::Session));
        assert_eq!(parse("/v1/boot"), Ok(Target::Boot));
        assert_eq!(parse("/v1/ohttp"), Ok(Target::Ohttp));
    }

    #[test]
    fn everything_else_is_refused() {
        for (target, status) in [
            ("/", 404),
            ("/v2/models", 404),
            ("/v2/models/", 404),
            ("/v2/models/m/", 404),
            ("/v2/models//infer", 404),
            ("/v2/models/m/explain", 404),
            ("/v2/models/m/versions//infer", 404),
            ("/v2/models/m/versions/3/infer/x", 404),
            ("//v2", 404),
            ("/v2/models/m/infer?", 400),
            ("/v2/models/m/infer?a=b", 400),
            ("/v2/models/%6d/infer", 400),
            ("/v2/models/a%20b/infer", 400),
            ("http://example/v2", 400),
            ("/v1/objects/00", 400),
            ("/v1/objects/", 400),
            ("/v1/session/", 404),
            ("/v1/session?", 400),
            ("/v1/boot/", 404),
            ("/v1/ohttp?", 400),
        ] {
            assert_eq!(parse(target), Err(status), "{target}");
        }
    }
}
