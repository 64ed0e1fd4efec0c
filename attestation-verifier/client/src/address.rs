//! Servers, as URLs name them.

use hyper::Uri;
use rustls::pki_types::ServerName;

use crate::Error;

/// A server: `https://HOST[:PORT]` or `http://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Server {
    /// TLS, or the host's own HTTP.
    pub tls: bool,
    /// Name or address to connect to, without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Value of the Host header.
    pub authority: String,
}

impl Server {
    /// Reads the URL of a server.
    pub fn parse(url: &str) -> Result<Server, Error> {
        let wrong = |what: &str| Error::Usage(format!("URL {url:?}: {what}"));
        let uri: Uri = url.parse().map_err(|e| wrong(&format!("{e}")))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("expected https://HOST[:PORT]")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("no user names or passwords"));
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(wrong("expected a server alone, without a path"));
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        // As `Authority` has it, a port that is too large were none.
        let rest = authority.as_str().strip_prefix(authority.host());
        let port = match rest.unwrap_or_default() {
            "" if tls => 443,
            "" => 80,
            rest => {
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
                port.ok_or_else(|| wrong("not a port"))?
            }
        };
        let server = Server {
            tls,
            host: host.to_owned(),
            port,
            authority: authority.to_string(),
        };
        if tls {
            server.name()?;
        }
        Ok(server)
    }

    /// The host's own HTTP on the same port.
    pub fn records(&self) -> Server {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        Server {
            tls: false,
            authority: format!("{host}:{}", self.port),
            ..self.clone()
        }
    }

    /// The name that TLS asks for.
    pub fn name(&self) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(self.host.clone())
            .map_err(|e| Error::Usage(format!("host {:?}: {e}", self.host)))
    }

    /// As a URL names it.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_host_and_port_alone() {
        let server = Server::parse("https://127.0.0.1:8080").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", 8080));
        assert!(server.tls);
        assert_eq!(Server::parse("http://example/").unwrap().port, 80);
        assert_eq!(Server::parse("https://example").unwrap().port, 443);
        assert_eq!(Server::parse("https://[::1]:9").unwrap().host, "::1");
        for (bad, says) in [
            ("ftp://example", "expected https://"),
            ("example:8080", "expected https://"),
            ("https://example/v2", "without a path"),
            ("https://example?x", "without a path"),
            ("https://me@example", "user names"),
            ("https://example:99999", "port"),
            ("https://example:", "port"),
            ("https://a_b..c", "host"),
            ("https://", ""),
            ("", ""),
        ] {
            let error = Server::parse(bad).unwrap_err();
            assert_eq!((error.deciding(), error.exit()), ("usage", 1), "{bad}");
            assert!(error.to_string().contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn the_hosts_own_http_is_on_the_same_port() {
        for (url, records) in [
            ("https://example", "http://example:443"),
            ("https://example:8443", "http://example:8443"),
            ("https://[::1]:9", "http://[::1]:9"),
        ] {
            let server = Server::parse(url).unwrap().records();
            assert_eq!(server.url(), records);
            assert_eq!(Server::parse(records).unwrap(), server);
        }
    }
}
