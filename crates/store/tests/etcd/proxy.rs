//! A way to an etcd that can be cut: connections end in the middle of what they carry, or stand still.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

pub struct Proxy {
    pub endpoint: String,
    /// Connections are refused.
    pub closed: Arc<AtomicBool>,
    cut: broadcast::Sender<()>,
    pub cuts: AtomicU64,
}

impl Proxy {
    pub async fn to(target: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (cut, _) = broadcast::channel(4);
        let proxy = Arc::new(Self {
            endpoint: listener.local_addr().unwrap().to_string(),
            closed: Arc::default(),
            cut: cut.clone(),
            cuts: AtomicU64::new(0),
        });
        let closed = proxy.closed.clone();
        tokio::spawn(async move {
            while let Ok((inner, _)) = listener.accept().await {
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(outer) = TcpStream::connect(&target).await else { continue };
                let ((inner_read, inner_write), (outer_read, outer_write)) = (inner.into_split(), outer.into_split());
                // What goes out is still delivered when the way back is cut: answers are lost, requests are not.
                tokio::spawn(copy(inner_read, outer_write, None));
                tokio::spawn(copy(outer_read, inner_write, Some(cut.subscribe())));
            }
        });
        proxy
    }

    /// Ends every connection's way back at once.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        // Nobody may be connected.
        let _ = self.cut.send(());
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cut: Option<broadcast::Receiver<()>>,
) {
    let cut = async {
        match cut {
            Some(mut cut) => drop(cut.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(cut);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = &mut cut => return,
        };
        let Ok(count @ 1..) = read else { return };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
