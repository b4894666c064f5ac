//! Connections to the application's hosts.
//!
//! **Lives here:** reading a URL, resolving its host, judging each address and connecting to just that one, TLS.
//! **Called by:** `call`.
//! **Must not know:** HTTP, what is sent.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use hyper::Uri;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::Egress;

/// Addresses of one host that are tried, and for how long each.
const ADDRESSES_MAX: usize = 3;
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Where a webhook's URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The host's name or address, without brackets.
    pub(crate) host: String,
    port: u16,
    tls: bool,
    /// Host and port as the URL has them.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl Place {
    /// Reads a URL; `None` when it is not one of `http` or `https`, or holds a user's name.
    pub(crate) fn read(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => {
                if tls {
                    443
                } else {
                    80
                }
            }
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let (host, authority, path) = (host.to_owned(), authority.to_string(), path.to_owned());
        (!host.is_empty()).then_some(Self { host, port, tls, authority, path })
    }

    /// Says whether certificates are needed to judge who answers.
    pub(crate) const fn has_tls(&self) -> bool {
        self.tls
    }
}

/// Finds the addresses of a host.
pub(crate) trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The machine's own resolver.
pub(crate) struct System;

impl Resolve for System {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        lookup_host((host, port)).map(|found| found.map(Iterator::collect)).boxed()
    }
}

/// What bytes come from and go to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("its address is not one of the Internet, and not allowed by `webhooks.egress`")]
    Forbidden,
    #[error("its host cannot be resolved: {0}")]
    Resolve(io::Error),
    #[error("it cannot be reached: {0}")]
    Connect(io::Error),
    #[error("TLS fails: {0}")]
    Tls(io::Error),
}

/// Makes connections.
pub(crate) struct Dialer {
    egress: Egress,
    resolver: Box<dyn Resolve>,
    tls: TlsConnector,
}

impl Dialer {
    /// `roots` are trusted to say who answers for an `https` URL.
    pub(crate) fn new(egress: Egress, resolver: Box<dyn Resolve>, roots: RootCertStore) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { egress, resolver, tls: Arc::new(config).into() }
    }

    /// Connects to an address of the place's host that may be called.
    ///
    /// # Errors
    /// [`DialError`], of the last address when several failed.
    pub(crate) async fn dial(&self, place: &Place) -> Result<Box<dyn Stream>, DialError> {
        let addresses = self.resolver.resolve(&place.host, place.port).await.map_err(DialError::Resolve)?;
        let allowed = addresses.into_iter().filter(|address| self.egress.allows(address.ip()));
        let mut failed = DialError::Forbidden;
        for address in allowed.take(ADDRESSES_MAX) {
            match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return self.secure(place, socket).await,
                Ok(Err(error)) => failed = DialError::Connect(error),
                Err(_elapsed) => failed = DialError::Connect(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failed)
    }

    async fn secure(&self, place: &Place, socket: TcpStream) -> Result<Box<dyn Stream>, DialError> {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a socket cannot be told to send at once");
        }
        if !place.tls {
            return Ok(Box::new(socket));
        }
        let name = ServerName::try_from(place.host.clone())
            .map_err(|error| DialError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let secured = self.tls.connect(name, socket).await.map_err(DialError::Tls)?;
        Ok(Box::new(secured))
    }
}

#[cfg(test)]
mod tests;
