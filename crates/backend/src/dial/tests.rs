use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::Network;

#[test]
fn a_url_leads_to_a_place() {
    for (url, host, port, authority, path) in [
        ("http://example.com", "example.com", 80, "example.com", "/"),
        ("https://Example.com/hook?a=b%20c&d", "Example.com", 443, "Example.com", "/hook?a=b%20c&d"),
        ("https://example.com:8443/x/", "example.com", 8443, "example.com:8443", "/x/"),
        ("http://[2001:db8::1]:81/", "2001:db8::1", 81, "[2001:db8::1]:81", "/"),
        ("http://10.0.0.1/#part", "10.0.0.1", 80, "10.0.0.1", "/"),
    ] {
        let place = Place::read(url).unwrap();
        let read = (place.host.as_str(), place.port, place.authority.as_str(), place.path.as_str());
        assert_eq!(read, (host, port, authority, path), "{url}");
        assert_eq!(place.has_tls(), url.starts_with("https"));
    }
    for bad in
        ["", "example.com", "//a/", "ftp://a/", "http://", "http://:80/", "http://u:p@a/", "http://a:99999/"]
    {
        assert_eq!(Place::read(bad), None, "{bad}");
    }
}

/// Answers every question with the same addresses, and counts the questions.
struct Fixed(Vec<IpAddr>, Arc<AtomicUsize>);

impl Resolve for Fixed {
    fn resolve<'a>(&'a self, _host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let addresses = self.0.iter().map(|address| SocketAddr::new(*address, port)).collect();
        std::future::ready(Ok(addresses)).boxed()
    }
}

fn only(address: Ipv4Addr) -> Egress {
    Egress::new(vec![Network { address: address.into(), bits: 32 }])
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const NEXT_DOOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn an_address_that_is_not_allowed_is_never_connected_to() {
    let listener = TcpListener::bind((HOME, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let place = Place::read(&format!("http://example.com:{port}/")).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let addresses = vec![HOME.into(), HOME.to_ipv6_mapped().into(), HOME.to_ipv6_compatible().into()];
    let resolver = Fixed(addresses, Arc::clone(&asked));
    let dialer = Dialer::new(Egress::default(), Box::new(resolver), RootCertStore::empty());
    assert!(matches!(dialer.dial(&place).await.err(), Some(DialError::Forbidden)));
    let localhost = Place::read(&format!("http://localhost:{port}/")).unwrap();
    let written = Place::read(&format!("http://127.0.0.1:{port}/")).unwrap();
    let decimal = Place::read(&format!("http://2130706433:{port}/")).unwrap();
    let dialer = Dialer::new(Egress::default(), Box::new(System), RootCertStore::empty());
    for place in [localhost, written, decimal] {
        let refused = dialer.dial(&place).await.err();
        assert!(matches!(refused, Some(DialError::Forbidden)), "{place:?}: {refused:?}");
    }
    // Who comes now is the first to have come.
    let visitor = TcpStream::connect((HOME, port)).await.unwrap();
    let (_, first) = listener.accept().await.unwrap();
    assert_eq!(first, visitor.local_addr().unwrap());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn of_several_addresses_only_those_that_are_allowed_are_tried_and_the_host_is_resolved_once() {
    let allowed = TcpListener::bind((NEXT_DOOR, 0)).await.unwrap();
    let port = allowed.local_addr().unwrap().port();
    let place = Place::read(&format!("http://example.com:{port}/")).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let resolver = Fixed(vec![HOME.into(), NEXT_DOOR.into()], Arc::clone(&asked));
    let dialer = Dialer::new(only(NEXT_DOOR), Box::new(resolver), RootCertStore::empty());
    let (dialed, accepted) = tokio::join!(dialer.dial(&place), allowed.accept());
    assert!(dialed.is_ok() && accepted.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(allowed);
    assert!(matches!(dialer.dial(&place).await.err(), Some(DialError::Connect(_))));
}

/// Files of a test, removed with it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes an authority that signs itself, and a certificate for `example.com` of it.
fn certificates(directory: &Path) {
    let run = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        let made =
            openssl.current_dir(directory).args(arguments.split(' ')).output().expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    run(&format!("{new} -subj /CN=authority -keyout ca.key -out ca.pem"));
    run(&format!(
        "{new} -subj /CN=server -addext subjectAltName=DNS:example.com -addext basicConstraints=critical,CA:FALSE \
         -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem"
    ));
}

#[tokio::test]
async fn who_answers_for_https_must_have_a_certificate_of_the_host_by_somebody_who_is_trusted() {
    let directory = std::env::temp_dir().join(format!("carillon-dial-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let directory = Directory(directory);
    certificates(&directory.0);
    let certificate = CertificateDer::from_pem_file(directory.0.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.0.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((HOME, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let trusting = || {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(directory.0.join("ca.pem")).unwrap()).unwrap();
        roots
    };
    let dialer = |roots| {
        let resolver = Fixed(vec![HOME.into()], Arc::default());
        Dialer::new(only(HOME), Box::new(resolver), roots)
    };
    let answer = || async {
        let (socket, _) = listener.accept().await.unwrap();
        if let Ok(mut secured) = acceptor.accept(socket).await {
            secured.write_all(b"hello").await.unwrap();
            secured.shutdown().await.unwrap();
        }
    };
    let place = |host: &str| Place::read(&format!("https://{host}:{port}/")).unwrap();
    let ((), greeting) = tokio::join!(answer(), async {
        let mut secured = dialer(trusting()).dial(&place("example.com")).await.ok().unwrap();
        let mut greeting = String::new();
        secured.read_to_string(&mut greeting).await.unwrap();
        greeting
    });
    assert_eq!(greeting, "hello");
    for (dialer, host) in [
        (dialer(trusting()), "example.org"),
        (dialer(trusting()), "127.0.0.1"),
        (dialer(RootCertStore::empty()), "example.com"),
    ] {
        let place = place(host);
        let ((), refused) = tokio::join!(answer(), dialer.dial(&place));
        let refused = refused.err();
        assert!(matches!(refused, Some(DialError::Tls(_))), "{host}: {refused:?}");
    }
}
