//! Names of images: `registry.example:5000/team/app:1.2@sha256:...`.
//!
//! Source: the grammar in distribution/reference (reference.go), with its limits.

const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// Whether a container runtime could ask for it.
pub fn is_reference(text: &str) -> bool {
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest)),
        None => (text, None),
    };
    // A colon behind the last slash begins a tag; one before it, a port.
    let start = text.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match text[start..].split_once(':') {
        Some((last, tag)) => (&text[..start + last.len()], Some(tag)),
        None => (text, None),
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || has_upper(first) => {
            (Some(first), rest)
        }
        _ => (None, name),
    };
    name.len() <= NAME_BYTES_MAX
        && domain.is_none_or(is_domain)
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
        // What looks like an identifier is not a name.
        && !(name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let port = rest.strip_prefix(':').or(rest.is_empty().then_some("0"));
            return address.parse::<std::net::Ipv6Addr>().is_ok() && port.is_some_and(is_port);
        }
        None => text.split_once(':').map_or((text, "0"), |(host, port)| (host, port)),
    };
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && is_port(port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Small letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separators =
        text.split(|letter: char| letter.is_ascii() && plain(letter as u8)).filter(|part| !part.is_empty());
    let edges = |byte: Option<u8>| byte.is_some_and(plain);
    edges(text.bytes().next())
        && edges(text.bytes().next_back())
        && separators.all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= TAG_BYTES_MAX && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_told_from_what_is_none() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for good in [
            "nginx",
            "nginx:1.25",
            "library/nginx",
            "registry.k8s.io/coredns/coredns:v1.12.1",
            "localhost:5000/a",
            "[::1]:5000/a:b",
            "Example.com/a",
            "a/b__c/d-----e.f",
            "a:V1_x.y-z",
            &digest,
        ] {
            assert!(is_reference(good), "{good}");
        }
        let id = "0".repeat(64);
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "nginx:-a",
            "a b",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a_",
            "a..b",
            "a:b:c",
            "a@sha256:12",
            "a@md5:00",
            "http://example.com/a",
            "ex_ample.com/a",
            &id,
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn names_and_tags_have_an_end() {
        let name = |bytes: usize| "a".repeat(bytes);
        assert!(is_reference(&name(NAME_BYTES_MAX)) && !is_reference(&name(NAME_BYTES_MAX + 1)));
        let tag = |bytes: usize| format!("a:{}", "b".repeat(bytes));
        assert!(is_reference(&tag(TAG_BYTES_MAX)) && !is_reference(&tag(TAG_BYTES_MAX + 1)));
    }
}
