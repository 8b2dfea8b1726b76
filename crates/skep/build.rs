//! Packs the folder `charts/` into the binary: a table of charts and their files.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../../charts");
    println!("cargo::rerun-if-changed={}", root.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("charts.rs");
    let mut table = fs::File::create(out)?;
    writeln!(table, "&[")?;
    for chart in sorted(&root)? {
        if chart.join("Chart.yaml").is_file() {
            writeln!(table, "    ({:?}, &[", name(&chart))?;
            files(&chart, "", &mut table)?;
            writeln!(table, "    ]),")?;
        }
    }
    writeln!(table, "]")
}

fn files(folder: &Path, prefix: &str, table: &mut fs::File) -> io::Result<()> {
    for path in sorted(folder)? {
        let inner = format!("{prefix}{}", name(&path));
        if path.is_dir() {
            files(&path, &format!("{inner}/"), table)?;
        } else {
            writeln!(table, "        ({inner:?}, include_bytes!({:?})),", path.canonicalize()?)?;
        }
    }
    Ok(())
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
