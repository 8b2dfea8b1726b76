//! `skep catalog serve`: what is served and where. Whoever has the ports carries it out.

use std::{net::SocketAddr, path::PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder as skep catalog mirror writes it, or with charts in it: archives or folders [default: the charts of this program]
    pub folder: Option<PathBuf>,
    /// Where to listen; without TLS, on this machine's own addresses only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8879")]
    pub listen: SocketAddr,
    /// Certificate (PEM), with those between it and its authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}
