//! What the proxy says of itself: one document for programs, one page for people. Neither holds anything of a
//! question or an answer, and neither may be read by scripts of another origin.

use std::fmt::Write as _;

use attestation_verifier::dates::rfc3339;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use serde::Serialize;
use touchstone_client::Session;
use touchstone_client::manifest::InUse;
use touchstone_formats::text::is_control;

use super::stats::{Percentiles, Snapshot};

/// Everything that is shown.
#[derive(Serialize)]
pub struct Status {
    /// Always `touchstone/proxy-status/1`.
    pub v: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// Where the proxy listens.
    pub listen: String,
    /// The server it asks.
    pub server: String,
    /// Profile of the policy.
    pub policy: String,
    /// Guarantees that every answer has to hold.
    pub require: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Requests under way.
    pub in_flight: usize,
    /// The newest attested connection.
    pub session: Option<SessionView>,
    /// The manifest in use; none where the policy asks for none.
    pub manifest: Option<ManifestView>,
    /// Attested connections.
    pub connections: Connections,
    /// What became of requests.
    #[serde(flatten)]
    pub answers: Snapshot,
}

/// Attested connections so far.
#[derive(Clone, Copy, Serialize)]
pub struct Connections {
    /// Made: at the start, on expiry, on rotation, after a connection was lost.
    pub sessions: u64,
    /// Refused.
    pub sessions_refused: u64,
    /// Requests sent again, because the enclave had gone on to another keyset.
    pub resent: u64,
}

/// What an attested connection rests on.
#[derive(Serialize)]
pub struct SessionView {
    /// Name in the keyset: the operator's word.
    pub name: String,
    /// The keyset's digest.
    pub keyset: String,
    /// The keyset's last second.
    pub not_after: String,
    /// When the connection was attested.
    pub opened_at: String,
    /// What binds it.
    pub binding: String,
    /// Launch measurement.
    pub measurement: Option<String>,
    /// The platform, as its evidence says.
    pub platform: serde_json::Value,
    /// The release that it runs, by the manifest; null where the policy asks for none.
    pub release: serde_json::Value,
    /// Whether the platform is simulated.
    pub simulated: bool,
}

/// The manifest that is judged by.
#[derive(Serialize)]
pub struct ManifestView {
    /// The name that the policy demands.
    pub name: String,
    /// The newest version that was accepted.
    pub version: Option<u64>,
    /// Its last second.
    pub not_after: Option<String>,
    /// Who signed it, as the policy calls them.
    pub signed_by: Vec<String>,
    /// When the host was last asked for a newer one.
    pub asked_at: Option<String>,
    /// Why what the host gave then does not count.
    pub not_refreshed: Option<String>,
}

impl ManifestView {
    /// What there is to show of it.
    pub fn of(in_use: InUse) -> ManifestView {
        let (version, ends) = in_use.manifest.unzip();
        let (asked, outcome) = in_use.asked.unzip();
        ManifestView {
            name: in_use.name,
            version,
            not_after: ends.map(rfc3339),
            signed_by: in_use.signed_by,
            asked_at: asked.map(rfc3339),
            not_refreshed: outcome.and_then(Result::err),
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let version = self.version.map(|version| version.to_string());
        let rows = [
            ("name", Some(self.name.clone())),
            ("version", version.or(Some("there is none".into()))),
            ("ends", self.not_after.clone()),
            (
                "signed by",
                Some(self.signed_by.join(", ")).filter(|s| !s.is_empty()),
            ),
            ("the host was asked for a newer one", self.asked_at.clone()),
            (
                "and what it gave does not count",
                self.not_refreshed.clone(),
            ),
        ];
        let rows = rows
            .into_iter()
            .filter_map(|(name, value)| Some((name.into(), value?)));
        rows.collect()
    }
}

impl SessionView {
    /// What there is to show of a session.
    pub fn of(session: &Session) -> SessionView {
        let (record, verdict) = (&session.record, &session.verdict);
        SessionView {
            name: record.keyset().name.clone(),
            keyset: session.keyset().to_string(),
            not_after: rfc3339(record.keyset().not_after),
            opened_at: rfc3339(record.opened_at()),
            binding: verdict.binding().to_string(),
            measurement: verdict.context.measurement.clone(),
            platform: verdict.context.platform.as_ref().clone(),
            release: verdict.context.release.clone(),
            simulated: verdict.context.simulated,
        }
    }
}

impl Status {
    /// `status.json`.
    pub fn document(&self) -> Response<Full<Bytes>> {
        // Strings and numbers: this cannot fail.
        let body = serde_json::to_vec(self).unwrap_or_default();
        own(body, "application/json")
    }

    /// The page.
    pub fn page(&self) -> Response<Full<Bytes>> {
        own(self.html().into_bytes(), "text/html; charset=utf-8")
    }

    fn html(&self) -> String {
        let mut page = Page(HEAD.to_owned());
        let (mood, words) = self.summary();
        page.summary(mood, &words);
        page.table("Enclave", &self.enclave());
        let manifest = self.manifest.as_ref();
        page.table(
            "Manifest",
            &manifest.map_or_else(Vec::new, ManifestView::rows),
        );
        page.table("Answers", &self.counters());
        let refusals = self.answers.last_refusals.iter().map(|refusal| {
            let about = refusal.receipt.as_deref().unwrap_or("no answer");
            (
                format!("{} {} {about}", refusal.at, refusal.model),
                format!(
                    "{} (exit {}): {}",
                    refusal.check, refusal.exit, refusal.reason
                ),
            )
        });
        page.table("Last refusals", &refusals.collect::<Vec<_>>());
        let own = [
            ("listens on", self.listen.clone()),
            ("asks", self.server.clone()),
            ("policy", self.policy.clone()),
            ("every answer must be", self.require.clone()),
            ("up", format!("{} s", self.uptime_s)),
            ("version", self.version.to_owned()),
        ];
        page.table("Proxy", &own.map(|(name, value)| (name.to_owned(), value)));
        page.0.push_str("</main></body></html>\n");
        page.0
    }

    /// How matters stand, in a line.
    fn summary(&self) -> (&'static str, String) {
        match (&self.answers.session_refused, &self.session) {
            (Some(refusal), _) => (
                "bad",
                format!("No attested session: {}: {}", refusal.check, refusal.reason),
            ),
            (None, Some(session)) if session.simulated => (
                "odd",
                "Attested, on a SIMULATED platform: nothing here proves anything about real hardware"
                    .into(),
            ),
            (None, Some(session)) => (
                "good",
                format!("Attested: every connection is bound by {}", session.binding),
            ),
            (None, None) => ("bad", "No attested session".into()),
        }
    }

    fn enclave(&self) -> Vec<(String, String)> {
        let Some(session) = &self.session else {
            return Vec::new();
        };
        let mut rows = vec![
            ("name (the operator's word)".into(), session.name.clone()),
            ("binding".into(), session.binding.clone()),
            (
                "measurement".into(),
                session.measurement.clone().unwrap_or_default(),
            ),
            ("keyset".into(), session.keyset.clone()),
            ("keyset ends".into(), session.not_after.clone()),
            ("newest connection since".into(), session.opened_at.clone()),
        ];
        for (name, member) in [
            ("release", "release"),
            ("release's platform", "platform"),
            ("release ends", "not_after"),
        ] {
            let value = session.release.get(member).and_then(|value| value.as_str());
            rows.extend(value.map(|value| (name.into(), value.to_owned())));
        }
        let platform = session.platform.as_object().into_iter().flatten();
        rows.extend(platform.map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            (name.clone(), text.unwrap_or_else(|| value.to_string()))
        }));
        rows
    }

    fn counters(&self) -> Vec<(String, String)> {
        let latency = |p: &Percentiles| {
            format!(
                "p50 {} ms, p90 {} ms, p99 {} ms, slowest {} ms (latest {})",
                p.p50, p.p90, p.p99, p.max, p.answers
            )
        };
        let a = &self.answers;
        let c = &self.connections;
        let mut rows = vec![
            ("verified and passed on".into(), a.verified.to_string()),
            (
                "refused by the enclave itself".into(),
                a.enclave_refusals.to_string(),
            ),
            ("passed on without a receipt".into(), a.relayed.to_string()),
            ("under way".into(), self.in_flight.to_string()),
            ("from request to verified".into(), latency(&a.total_ms)),
            ("of that, until sealed".into(), latency(&a.seal_ms)),
            ("sessions attested".into(), c.sessions.to_string()),
            ("sessions refused".into(), c.sessions_refused.to_string()),
            (
                "sent again after a change of keys".into(),
                c.resent.to_string(),
            ),
        ];
        let checks = a.refused.iter();
        rows.extend(checks.map(|(check, n)| (format!("not verified: {check}"), n.to_string())));
        let declined = a.declined.iter();
        rows.extend(declined.map(|(status, n)| (format!("declined with {status}"), n.to_string())));
        rows
    }
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"5\">\
<title>Touchstone proxy</title><style>\
body{font:15px/1.5 system-ui,sans-serif;margin:0;background:#f6f6f4;color:#222}\
main{max-width:60rem;margin:0 auto;padding:1rem}h1{font-size:1.2rem}h2{font-size:1rem;margin:1.5rem 0 .3rem}\
.state{padding:.6rem .8rem;border-left:.4rem solid}.good{border-color:#2a7d3f}.odd{border-color:#b8860b}\
.bad{border-color:#b3261e}table{border-collapse:collapse;width:100%;background:#fff}\
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem;border-bottom:1px solid #e4e4e0;overflow-wrap:anywhere}\
th{width:16rem;font-weight:normal;color:#666}td{font-family:ui-monospace,monospace;font-size:.9em}\
</style></head><body><main><h1>Touchstone proxy</h1>";

/// HTML in the making. All text in it goes through [`Page::text`]: names and reasons may be a stranger's.
struct Page(String);

impl Page {
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_control(c) => self.0.extend(c.escape_default()),
                c => self.0.push(c),
            }
        }
    }

    fn summary(&mut self, class: &'static str, words: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "<p class=\"state {class}\">");
        self.text(words);
        self.0.push_str("</p>");
    }

    /// A table with a heading; nothing at all without rows.
    fn table(&mut self, heading: &'static str, rows: &[(String, String)]) {
        if rows.is_empty() {
            return;
        }
        let _ = write!(self.0, "<h2>{heading}</h2><table>");
        for (name, value) in rows {
            self.0.push_str("<tr><th>");
            self.text(name);
            self.0.push_str("</th><td>");
            self.text(value);
            self.0.push_str("</td></tr>");
        }
        self.0.push_str("</table>");
    }
}

/// An answer of the proxy about itself: for its own origin alone, never kept, no scripts, no frames.
fn own(body: Vec<u8>, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_stay_words() {
        let mut page = Page(String::new());
        page.table(
            "Heading",
            &[("<b>".into(), "\"><script>alert('x')</script>\u{1b}&".into())],
        );
        assert_eq!(
            page.0,
            "<h2>Heading</h2><table><tr><th>&lt;b&gt;</th><td>&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\
             \\u{1b}&amp;</td></tr></table>"
        );
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for outside in [
            "http://", "https://", "src=", "href=", "<script", "@import", "url(",
        ] {
            assert!(!HEAD.contains(outside), "{outside}");
        }
        let response = own(Vec::new(), "text/html");
        let headers = response.headers();
        assert!(
            headers[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}
