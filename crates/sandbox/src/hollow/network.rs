//! How hollow machines listen and call: over sockets, or inside this process.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::{
    client::legacy::{
        Client as HttpClient,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use kube::{Client, Config, client::ConfigExt};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpListener,
    sync::mpsc,
};
use tower::{BoxError, ServiceBuilder};

/// Bytes that lie between the two ends of a connection inside this process.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections that wait to be accepted there; the next one is refused.
const BACKLOG: usize = 128;

/// One connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// An address that is listened at; closed when it is dropped.
pub trait Listener: Send {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
}

pub trait Network: Send + Sync + 'static {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// A client of the API server that the configuration names, with TLS and credentials as it says.
    fn client(&self, config: Config) -> kube::Result<Client>;
}

/// The machine's own network.
#[derive(Clone, Copy, Debug)]
pub struct Sockets;

impl Network for Sockets {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Listener>) })
    }

    fn client(&self, config: Config) -> kube::Result<Client> {
        Client::try_from(config)
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let (stream, _) = TcpListener::accept(self).await?;
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// A network that begins and ends in this process: no ports, no files, no waiting that a paused clock does not see.
#[derive(Clone, Default)]
pub struct InProcess {
    listeners: Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<DuplexStream>>>>,
}

impl Network for InProcess {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut listeners = self.listeners.lock();
            if listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, receiver) = mpsc::channel(BACKLOG);
            listeners.insert(address, sender);
            Ok(Box::new(Accepting(receiver)) as Box<dyn Listener>)
        })
    }

    fn client(&self, config: Config) -> kube::Result<Client> {
        let network = self.clone();
        let connector = tower::service_fn(move |uri: Uri| std::future::ready(network.connect(&uri)));
        let https = config.rustls_https_connector_with_connector(connector)?;
        let http = HttpClient::builder(TokioExecutor::new()).build(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .map_err(BoxError::from)
            .service(http);
        Ok(Client::new(service, config.default_namespace))
    }
}

impl InProcess {
    fn connect(&self, uri: &Uri) -> io::Result<TokioIo<Pipe>> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).parse().map_err(|_| refused())?;
        let address = SocketAddr::new(host, uri.port_u16().unwrap_or(443));
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let listener = self.listeners.lock().get(&address).cloned().ok_or_else(refused)?;
        listener.try_send(theirs).map_err(|_| refused())?;
        Ok(TokioIo::new(Pipe(ours)))
    }
}

struct Accepting(mpsc::Receiver<DuplexStream>);

impl Listener for Accepting {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = self.0.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// The client's end of a connection inside this process.
struct Pipe(DuplexStream);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn an_address_is_reached_while_it_is_listened_at() {
        let network = InProcess::default();
        let uri: Uri = "https://127.9.9.9:6443".parse().unwrap();
        let refused = |result: io::Result<TokioIo<Pipe>>| result.err().map(|error| error.kind());
        assert_eq!(refused(network.connect(&uri)), Some(io::ErrorKind::ConnectionRefused));
        let address = "127.9.9.9:6443".parse().unwrap();
        let mut listener = network.listen(address).await.unwrap();
        assert_eq!(network.listen(address).await.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
        let mut near = network.connect(&uri).unwrap().into_inner();
        let mut far = listener.accept().await.unwrap();
        near.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        drop(listener);
        assert_eq!(refused(network.connect(&uri)), Some(io::ErrorKind::ConnectionRefused));
        assert!(network.listen(address).await.is_ok());
    }

    #[tokio::test]
    async fn no_more_than_the_backlog_waits() {
        let network = InProcess::default();
        let _listener = network.listen("127.9.9.9:443".parse().unwrap()).await.unwrap();
        let uri: Uri = "https://127.9.9.9".parse().unwrap();
        let waiting: Vec<_> = (0..BACKLOG).map(|_| network.connect(&uri).unwrap()).collect();
        assert_eq!(waiting.len(), BACKLOG);
        assert!(network.connect(&uri).is_err());
    }
}
