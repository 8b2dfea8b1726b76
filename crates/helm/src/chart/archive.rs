//! Charts as they are kept in repositories: a folder in a tar in gzip.

use std::{io::Read, sync::Arc};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::{BYTES_MAX, FILES_MAX, Files};
use crate::error::{Error, Result};

/// What the headers and paddings of a tar may add to the bytes of its files.
const TAR_BYTES_MAX: usize = BYTES_MAX + 1024 * (FILES_MAX + 2);

/// The files of a chart's archive, without the folder that they are all in.
///
/// # Errors
/// That it is none, that a path leads out of it, that it holds a link, or that it is beyond a limit.
pub fn unpack(archive: &[u8]) -> Result<Files> {
    let fail = |what: String| Error::Chart(format!("cannot unpack the chart: {what}"));
    let large = || Error::Limit(format!("the chart has more than {BYTES_MAX} bytes"));
    // One byte more than is allowed says that there is more.
    let mut bytes = Vec::new();
    let mut unzipped = MultiGzDecoder::new(archive).take(TAR_BYTES_MAX as u64 + 1);
    unzipped.read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    if bytes.len() > TAR_BYTES_MAX {
        return Err(large());
    }
    let mut files = Files::new();
    let mut total = 0_usize;
    let mut tar = Archive::new(&bytes[..]);
    for entry in tar.entries().map_err(|error| fail(error.to_string()))? {
        let mut entry = entry.map_err(|error| fail(error.to_string()))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).replace('\\', "/");
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader | EntryType::XHeader => continue,
            _ => return Err(fail(format!("{path} is no file"))),
        }
        let Some((_, inner)) = path.trim_start_matches("./").split_once('/') else {
            return Err(fail(format!("{path} is in no folder")));
        };
        let name = crate::functions::paths::clean(inner);
        if path.starts_with('/') || name == ".." || name.starts_with("../") || name.starts_with('/') || name == "." {
            return Err(fail(format!("{path} leads out of the chart")));
        }
        if files.len() >= FILES_MAX {
            return Err(Error::Limit(format!("the chart has more than {FILES_MAX} files")));
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data).map_err(|error| fail(error.to_string()))?;
        total += data.len();
        if total > BYTES_MAX {
            return Err(large());
        }
        let text = data.strip_prefix(super::MARK).unwrap_or(&data);
        files.insert(name, Arc::from(text));
    }
    if files.is_empty() {
        return Err(fail("no files are in it".to_owned()));
    }
    Ok(files)
}
