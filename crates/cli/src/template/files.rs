//! `--output-dir`: what comes of each template, in a file of its name.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions, create_dir_all},
    io::Write,
    path::{Component, Path},
};

use anyhow::{Context, Result, bail};

use super::{Piece, together};
use crate::output;

/// Writes as Helm does, one piece behind the other where several come of a template. Other than there, what an earlier run has
/// written is replaced, hooks too.
pub fn write(folder: &Path, objects: &[Piece], hooks: &[Piece]) -> Result<()> {
    let mut begun = HashSet::new();
    for piece in objects.iter().chain(hooks) {
        let inner = Path::new(&piece.path);
        if !inner.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("the template {} would be written outside of {}", piece.path, folder.display());
        }
        let path = folder.join(inner);
        append(&path, piece, begun.insert(&piece.path)).with_context(|| format!("write {}", path.display()))?;
        output::line(&format!("wrote {}/{}", folder.display(), piece.path));
    }
    // Of the manifests that are printed without a folder this is left.
    output::line("");
    Ok(())
}

fn append(path: &Path, piece: &Piece, is_first: bool) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        create_dir_all(folder)?;
    }
    let mut file = if is_first { File::create(path)? } else { OpenOptions::new().append(true).open(path)? };
    file.write_all(together(std::slice::from_ref(piece)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(path: &str, text: &str) -> Piece {
        Piece { path: path.into(), text: text.into() }
    }

    #[test]
    fn what_comes_of_a_template_is_in_its_file_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let objects = [piece("c/templates/a.yaml", "a: 1"), piece("c/templates/a.yaml", "b: 1")];
        let hooks = [piece("c/templates/h.yaml", "h: 1"), piece("c/templates/a.yaml", "c: 1")];
        for _ in 0..2 {
            write(folder.path(), &objects, &hooks).unwrap();
            let read = |name: &str| std::fs::read_to_string(folder.path().join("c/templates").join(name)).unwrap();
            let source = "---\n# Source: c/templates/a.yaml\n";
            assert_eq!(read("a.yaml"), format!("{source}a: 1\n{source}b: 1\n{source}c: 1\n"));
            assert_eq!(read("h.yaml"), "---\n# Source: c/templates/h.yaml\nh: 1\n");
        }
    }

    #[test]
    fn nothing_is_written_outside_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../a.yaml", "/a.yaml", "c/../../a.yaml"] {
            let error = write(folder.path(), &[piece(path, "")], &[]).unwrap_err().to_string();
            assert!(error.contains("would be written outside of"), "{error}");
        }
    }
}
