//! SQLite's write-ahead log, looked at before SQLite does (fileformat2, "The WAL Format"): SQLite goes on with the commits
//! before the first frame that is damaged and says nothing of what it leaves out.

use std::{
    fs::File,
    io::{BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Of the header; the last bit says that checksums are big-endian.
const MAGIC: u32 = 0x377f_0682;
const PAGE_BYTES_MAX: u32 = 65_536;

/// What is in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Whole commits that are used.
    pub commits: u64,
    /// Frames of this log behind them, damaged or without the end of their commit.
    pub dropped_frames: u64,
    /// Ends of commits among those frames. One may be of a commit that was being written when the power went; more are of
    /// commits that had been acknowledged.
    pub dropped_commits: u64,
    /// Bytes of the log that hold the whole commits.
    pub good_bytes: u64,
}

/// The log that lies beside a database.
pub fn path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

fn checksum(bytes: &[u8], (mut a, mut b): (u32, u32), big_endian: bool) -> (u32, u32) {
    for at in (0..bytes.len()).step_by(8) {
        a = a.wrapping_add(word(bytes, at, big_endian)).wrapping_add(b);
        b = b.wrapping_add(word(bytes, at + 4, big_endian)).wrapping_add(a);
    }
    (a, b)
}

/// Fills `buffer`; how many bytes there were.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads the log; none if there is no log, or nothing in it.
pub fn read(path: &Path) -> std::io::Result<Option<Log>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER_BYTES];
    if fill(&mut reader, &mut header)? < HEADER_BYTES {
        return Ok(None);
    }
    let magic = word(&header, 0, true);
    let big_endian = magic & 1 == 1;
    let page_bytes = word(&header, 8, true);
    let mut sum = checksum(&header[..24], (0, 0), big_endian);
    let is_log = magic & !1 == MAGIC && page_bytes.is_power_of_two() && page_bytes <= PAGE_BYTES_MAX;
    if !is_log || sum != (word(&header, 24, true), word(&header, 28, true)) {
        return Ok(None);
    }
    let salt = &header[16..24];
    let mut log = Log { good_bytes: HEADER_BYTES as u64, ..Log::default() };
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    let (mut whole, mut since_commit, mut position) = (true, 0, HEADER_BYTES as u64);
    loop {
        let read = fill(&mut reader, &mut frame)?;
        if read < FRAME_HEADER_BYTES || frame.get(8..16) != Some(salt) {
            break;
        }
        let ends_commit = word(&frame, 4, true) != 0;
        if whole && read == frame.len() {
            sum = checksum(&frame[..8], sum, big_endian);
            sum = checksum(&frame[FRAME_HEADER_BYTES..], sum, big_endian);
            whole = sum == (word(&frame, 16, true), word(&frame, 20, true));
        } else {
            whole = false;
        }
        position += read as u64;
        since_commit += 1;
        match (whole, ends_commit) {
            (true, true) => {
                log.commits += 1;
                log.good_bytes = position;
                since_commit = 0;
            }
            (false, true) if read == frame.len() => log.dropped_commits += 1,
            _ => {}
        }
    }
    log.dropped_frames = since_commit;
    Ok(Some(log))
}
