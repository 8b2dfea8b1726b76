//! W3C Trace Context, as it stands in a request's headers.

use http::{HeaderMap, HeaderValue};

use super::{PARENT, SAMPLED, STATE, wire};

/// A longer `tracestate` is not carried on (the recommendation's own limit for what has to be).
const STATE_BYTES_MAX: usize = 512;

/// The span of whoever called.
pub(super) struct Remote {
    pub trace: u128,
    pub span: u64,
    pub sampled: bool,
    pub state: Option<HeaderValue>,
}

fn hex(text: &str, length: usize) -> Option<u128> {
    let well = text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if well { u128::from_str_radix(text, 16).ok() } else { None }
}

impl Remote {
    /// None: the caller has no trace, or tells of it in a way that must be passed over.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(PARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32)?;
        let span = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        // Later versions may say more, this one may not.
        if version == 0xff || (version == 0 && parts.next().is_some()) || trace == 0 || span == 0 {
            return None;
        }
        let state = headers.get(STATE).filter(|state| state.len() <= STATE_BYTES_MAX).cloned();
        Some(Self { trace, span, sampled: flags & SAMPLED != 0, state })
    }

    pub fn link(&self) -> wire::Link {
        wire::Link {
            trace_id: self.trace.to_be_bytes().to_vec(),
            span_id: self.span.to_be_bytes().to_vec(),
            trace_state: self.state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default().to_owned(),
            flags: u32::from(self.sampled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parent: &str, state: &str) -> Option<Remote> {
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, parent.parse().unwrap());
        headers.insert(STATE, state.parse().unwrap());
        Remote::read(&headers)
    }

    #[test]
    fn a_trace_is_taken_over_only_if_it_is_well_formed() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let remote = read(good, "a=b").unwrap();
        assert_eq!((remote.trace, remote.span), (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331));
        assert!(remote.sampled && remote.state.is_some());
        assert!(!read(&good.replace("-01", "-00"), "").unwrap().sampled);
        assert!(read(&format!("cc{}-more", &good[2..]), "").is_some());
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &format!("ff{}", &good[2..]),
            &format!("{good}-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert!(read(bad, "").is_none(), "{bad}");
        }
    }

    #[test]
    fn state_is_carried_on_up_to_its_limit() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(read(parent, &"x".repeat(STATE_BYTES_MAX)).unwrap().state.is_some());
        assert!(read(parent, &"x".repeat(STATE_BYTES_MAX + 1)).unwrap().state.is_none());
    }
}
