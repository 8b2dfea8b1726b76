//! Catalogs by hand: `cargo run -p delivery --example catalog -- OPERATION …`
//! `mirror [--plain-http] FROM TO CHART[@VERSIONS]…` copies charts; FROM and TO are `http://` or `oci://`, TO may be a folder.
//! `list [--plain-http] FROM` prints what an index offers.

use std::{path::Path, sync::Arc};

use delivery::{
    mirror::{Target, Wanted, mirror},
    repository::{Access, Repositories, grant},
};
use jiff::Timestamp;
use transport::{Https, Proxies, Tls};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "a TLS provider is set already")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let plain_http = words.iter().any(|word| word == "--plain-http");
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--plain-http").collect();
    let access = Access { plain_http, ..Access::new(Arc::new(Https::new(&Tls::default(), Proxies::default())?)) };
    let repositories = Repositories::default();
    match *words.as_slice() {
        ["mirror", from, to, ref charts @ ..] => {
            let wanted = charts.iter().map(|word| {
                let (name, versions) = word.split_once('@').unwrap_or((word, ""));
                Wanted { name: name.to_owned(), versions: versions.to_owned(), count: 100 }
            });
            let wanted: Vec<Wanted> = wanted.collect();
            let target = match grant::is_registry(to) {
                true => Target::Registry { access: &access, url: to },
                false => Target::Folder(Path::new(to)),
            };
            let report = mirror(&repositories, (&access, from), &wanted, &target, Timestamp::UNIX_EPOCH).await?;
            for copied in &report.copied {
                let what = if copied.fresh { "copied" } else { "there" };
                say(&format!("{what} {} {} {}", copied.name, copied.version, copied.digest));
            }
            match report.failed.first() {
                Some(_) => Err(report.failed.iter().map(|error| format!("{error}\n")).collect::<String>().into()),
                None => Ok(()),
            }
        }
        ["list", from] => {
            for entry in repositories.index(&access, from).await?.entries.values().flatten() {
                say(&format!("{} {}", entry.name, entry.version));
            }
            Ok(())
        }
        _ => Err("expected mirror FROM TO CHART… or list FROM".into()),
    }
}

#[expect(clippy::print_stdout, reason = "it is what this program does")]
fn say(text: &str) {
    println!("{text}");
}
