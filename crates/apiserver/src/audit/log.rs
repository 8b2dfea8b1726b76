//! Where audit events go: a file that is put aside when it is full, or standard output. A thread of its own writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{AuditError, lost};
use crate::metrics::Metrics;

/// When a log is put aside, and how long it is kept (kube-apiserver's `--audit-log-max*`); 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    pub size_bytes: u64,
    pub backups: usize,
    pub age_days: u64,
}

struct Line {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

enum Message {
    Line(Line),
    Flush(oneshot::Sender<()>),
}

/// Takes events; clones are not needed, since it is shared with the policy.
pub struct AuditLog {
    sender: Mutex<Option<mpsc::UnboundedSender<Message>>>,
}

impl AuditLog {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::start(Target::Stdout)
    }

    /// A file, made if it is not there, for its owner alone.
    pub fn file(path: &Path, rotation: Rotation) -> Result<Self, AuditError> {
        let fail = |source| AuditError::Open { path: path.display().to_string(), source };
        let target = Target::File(Box::new(Rotated::open(path, rotation).map_err(fail)?));
        Ok(Self::start(target))
    }

    fn start(mut target: Target) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        // Bounded by the room that each line holds until it is written.
        std::thread::spawn(move || {
            while let Some(message) = receiver.blocking_recv() {
                match message {
                    Message::Line(line) => {
                        if let Err(error) = target.write(&line.bytes, receiver.is_empty()) {
                            lost(&line.metrics, &error);
                        }
                    }
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        });
        Self { sender: Mutex::new(Some(sender)) }
    }

    /// False: the log is closed.
    pub(super) fn write(&self, bytes: Bytes, room: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> bool {
        let line = Message::Line(Line { bytes, _room: room, metrics });
        self.sender.lock().as_ref().is_some_and(|sender| sender.send(line).is_ok())
    }

    /// Returns when all that came before is written.
    pub(super) async fn close(&self) {
        let (done, written) = oneshot::channel();
        let sender = self.sender.lock().take();
        if sender.is_some_and(|sender| sender.send(Message::Flush(done)).is_ok()) {
            drop(written.await);
        }
    }
}

enum Target {
    Stdout,
    File(Box<Rotated>),
}

impl Target {
    /// `last`: nothing more waits, so what is written should be there.
    fn write(&mut self, line: &[u8], last: bool) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.flush()
            }
            Self::File(file) => {
                file.write(line)?;
                if last { file.out.flush() } else { Ok(()) }
            }
        }
    }
}

struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    out: BufWriter<File>,
    size: u64,
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((BufWriter::new(file), size))
}

impl Rotated {
    fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let (out, size) = open(path)?;
        Ok(Self { path: path.to_owned(), rotation, out, size })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let limit = self.rotation.size_bytes;
        if limit > 0 && self.size > 0 && self.size + line.len() as u64 > limit {
            self.rotate()?;
        }
        self.out.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// Beginning and end of the names of logs that were put aside: the time stands between.
    fn name_parts(&self) -> (String, String) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let end = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        (format!("{stem}-"), end)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let (begin, end) = self.name_parts();
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%6f").to_string();
        std::fs::rename(&self.path, folder.join(format!("{begin}{time}{end}")))?;
        (self.out, self.size) = open(&self.path)?;
        self.prune(folder, &begin, &end);
        Ok(())
    }

    fn prune(&self, folder: &Path, begin: &str, end: &str) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut old: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.strip_prefix(begin)
                    .and_then(|rest| rest.strip_suffix(end))
                    .is_some_and(|time| time.len() == 26 && time.starts_with(|c: char| c.is_ascii_digit()))
            })
            .collect();
        old.sort();
        let surplus = match self.rotation.backups {
            0 => 0,
            keep => old.len().saturating_sub(keep),
        };
        let age = std::time::Duration::from_secs(self.rotation.age_days.saturating_mul(86_400));
        for (at, path) in old.iter().enumerate() {
            let expired = || {
                let age_of = path.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
                self.rotation.age_days > 0 && age_of.is_some_and(|of| of > age)
            };
            if (at < surplus || expired())
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::warn!(%error, path = %path.display(), "an old audit log stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let other = folder.path().join("audit-of-something-else.log");
        std::fs::write(&other, "keep").unwrap();
        let mut log = Rotated::open(&path, Rotation { size_bytes: 10, backups: 2, age_days: 0 }).unwrap();
        for line in ["1 234567\n", "2\n", "3 234567\n", "4 2345678901234\n", "5\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        log.out.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "5\n");
        let mut texts: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        texts.sort();
        assert_eq!(texts, ["3 234567\n", "4 2345678901234\n", "5\n", "keep"]);
        let again = Rotated::open(&path, Rotation::default()).unwrap();
        assert_eq!(again.size, 2);
    }
}
