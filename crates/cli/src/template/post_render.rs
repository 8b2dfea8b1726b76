//! A post-renderer, as of Helm 3: a program that reads all objects of a release and writes what they are to become. Hooks go past it.
//! Only a user's own command runs one; controllers never do. Source: helm.sh/helm/v3, pkg/postrender.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// What a program may write, in bytes: far more than any cluster takes.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// As much is kept of what it says when it fails.
const SAID_BYTES_MAX: u64 = 64 * 1024;

/// Gives `manifest` to a program; what it writes.
///
/// # Errors
/// That it cannot be run, that it failed, with what it said, or that it wrote too much, or no text.
pub fn run(program: &Path, arguments: &[String], manifest: String) -> Result<String> {
    run_within(program, arguments, manifest, OUTPUT_BYTES_MAX)
}

fn run_within(program: &Path, arguments: &[String], manifest: String, bytes_max: u64) -> Result<String> {
    let what = || format!("run the post-renderer {}", program.display());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(what)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let writing = thread::spawn(move || {
        // A program need not read all that it is given.
        stdin.map(|mut stdin| stdin.write_all(manifest.as_bytes()))
    });
    let listening = thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // What it says beyond that is read too, so that it does not wait for somebody who does.
            let _ = stderr.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut said);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        }
        said
    });
    let mut written = Vec::new();
    let read = stdout.map(|stdout| stdout.take(bytes_max + 1).read_to_end(&mut written)).transpose();
    let is_too_much = u64::try_from(written.len()).is_ok_and(|bytes| bytes > bytes_max);
    if is_too_much {
        let _ = child.kill();
    }
    let status = child.wait().with_context(what)?;
    let _ = writing.join();
    let said = listening.join().unwrap_or_default();
    read.with_context(what)?;
    if is_too_much {
        bail!("the post-renderer {} wrote more than {bytes_max} bytes", program.display());
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        bail!("error while running command {}: {status}. error output:\n{}", program.display(), said.trim_end());
    }
    String::from_utf8(written)
        .with_context(|| format!("what the post-renderer {} wrote is no UTF-8", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, manifest: &str) -> Result<String, String> {
        run(Path::new("sh"), &["-c".into(), script.into()], manifest.into()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_a_program_writes_takes_the_place_of_what_it_read() {
        assert_eq!(shell("sed s/a/b/", "kind: a\n"), Ok("kind: b\n".to_owned()));
        assert_eq!(shell("echo unread", &"x".repeat(1 << 20)), Ok("unread\n".to_owned()));
        let large = "y".repeat(1 << 20);
        assert_eq!(shell("cat", &large), Ok(large), "it is written while it is read");
    }

    #[test]
    fn a_program_that_fails_is_told_with_what_it_said() {
        let error = shell("echo half; echo wrong >&2; exit 3", "").unwrap_err();
        assert_eq!(error, "error while running command sh: exit status: 3. error output:\nwrong");
        let missing = run(Path::new("/no/such/program"), &[], String::new()).unwrap_err();
        assert_eq!(missing.to_string(), "run the post-renderer /no/such/program");
        assert!(shell("printf '\\377'", "").unwrap_err().contains("no UTF-8"));
    }

    #[test]
    fn what_it_writes_has_an_end() {
        let of =
            |bytes: u64| run_within(Path::new("cat"), &[], "x".repeat(8), bytes).map_err(|error| error.to_string());
        assert_eq!(of(8), Ok("x".repeat(8)));
        assert_eq!(of(7).unwrap_err(), "the post-renderer cat wrote more than 7 bytes");
        let endless = run_within(Path::new("yes"), &[], String::new(), 100).unwrap_err();
        assert!(endless.to_string().contains("more than 100 bytes"));
    }
}
