//! Serves the sandbox cloud by itself: `cargo run -p sandbox --example cloud -- [PORT [FOLDER]]`.
//! Writes a clouds.yaml to the folder (or the current one) and keeps the cloud's state there.

use std::{path::PathBuf, sync::Arc};

use sandbox::cloud::{Cloud, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(5050), |p| p.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    std::fs::create_dir_all(&folder)?;
    let store = Arc::new(store::Embedded::open(&folder.join("cloud.db"), store::Limits::default())?);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let public_url = format!("http://{}", listener.local_addr()?);
    let cloud = Cloud::open(store, Options { public_url, ..Options::default() }).await?;
    std::fs::write(folder.join("clouds.yaml"), cloud.clouds_yaml("sandbox"))?;
    axum::serve(listener, cloud.router()).await?;
    Ok(())
}
