//! The little HTTP that a caller needs: one request, one bounded answer, no redirects, and a time
//! after which to give up.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HeaderMap;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A server, as `http://HOST[:PORT]` names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Name or address to connect to, without brackets.
    host: String,
    port: u16,
    /// Value of the Host header.
    pub authority: String,
}

/// An HTTP answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, after transfer decoding.
    pub body: Bytes,
}

impl Server {
    /// Reads the URL of a server.
    pub fn parse(url: &str) -> Result<Server> {
        let uri: Uri = url.parse().with_context(|| format!("URL {url:?}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => bail!("URL {url:?}: https is not in this version; expected http://"),
            _ => bail!("URL {url:?}: expected http://HOST[:PORT]"),
        }
        let authority = uri
            .authority()
            .with_context(|| format!("URL {url:?}: no host"))?;
        ensure!(
            !authority.as_str().contains('@'),
            "URL {url:?}: no user names or passwords"
        );
        ensure!(
            uri.path_and_query().is_none_or(|p| p == "/"),
            "URL {url:?}: expected a server alone, without a path"
        );
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        ensure!(!host.is_empty(), "URL {url:?}: no host");
        let port = authority.port_u16().unwrap_or(80);
        Ok(Server {
            host,
            port,
            authority: authority.to_string(),
        })
    }

    /// Sends one request on a connection of its own, and reads the answer.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        max_body: usize,
        timeout: Duration,
    ) -> Result<Answer> {
        let what = format!(
            "{} http://{}{}",
            request.method(),
            self.authority,
            request.uri()
        );
        match tokio::time::timeout(timeout, self.exchange(request, max_body)).await {
            Ok(answer) => answer.context(what),
            Err(_) => Err(anyhow!("no answer within {} s", timeout.as_secs_f32()).context(what)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, max_body: usize) -> Result<Answer> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection, which ends when the sender is dropped.
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, max_body)
            .collect()
            .await
            .map_err(|e| anyhow!("the answer's body: {e} (at most {max_body} bytes)"))?
            .to_bytes();
        driver.abort();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }
}

impl Answer {
    /// The one value of a header; `None` without it.
    ///
    /// Errors where it stands twice or is no visible ASCII: then no value can be relied upon.
    pub fn header(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.headers.get_all(name).iter();
        let Some(first) = values.next() else {
            return Ok(None);
        };
        ensure!(
            values.next().is_none(),
            "header {name} stands twice in the answer"
        );
        let text = first
            .to_str()
            .map_err(|_| anyhow!("header {name} is not visible ASCII"))?;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_host_and_port_alone() {
        let server = Server::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", 8080));
        assert_eq!(Server::parse("http://example/").unwrap().port, 80);
        assert_eq!(Server::parse("http://[::1]:9").unwrap().host, "::1");
        for (bad, says) in [
            ("https://example", "https is not in this version"),
            ("example:8080", "expected http://"),
            ("http://example/v2", "without a path"),
            ("http://example?x", "without a path"),
            ("http://me@example", "user names"),
            ("http://", ""),
            ("", ""),
        ] {
            let message = format!("{:#}", Server::parse(bad).unwrap_err());
            assert!(message.contains(says), "{bad}: {message}");
        }
    }
}
