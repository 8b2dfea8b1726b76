//! Archives of charts: what is read, and what is refused.

use std::io::{Read, Write};

use flate2::{Compression, write::GzEncoder};
use helm::{
    Error,
    chart::{self, Chart, Files, archive::unpack},
};
use tar::{Builder, EntryType, Header};

const CHART: &[u8] = b"apiVersion: v2\nname: s\nversion: 1.0.0\n";

fn zipped(tar: &[u8]) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
    zip.write_all(tar).unwrap();
    zip.finish().unwrap()
}

/// Paths as they are: the library would refuse to write some.
fn packed(files: &[(&str, &[u8], EntryType)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, data, kind) in files {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(data.len() as u64);
        header.set_entry_type(*kind);
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    zipped(&tar.into_inner().unwrap())
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn an_archive_is_read_as_its_folder_is() {
    let files = unpack(&packed(&[("s/Chart.yaml", CHART, FILE), ("s/templates/t", b"x", FILE)])).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["Chart.yaml", "templates/t"]);
    assert_eq!(Chart::load(&files).unwrap().name(), "s");
}

#[test]
fn an_archive_in_a_chart_is_a_chart_that_it_depends_on() {
    let inner = packed(&[("s/Chart.yaml", CHART, FILE)]);
    let files = unpack(&packed(&[("p/Chart.yaml", CHART, FILE), ("p/charts/s-1.0.0.tgz", &inner, FILE)])).unwrap();
    assert_eq!(Chart::load(&files).unwrap().dependencies.len(), 1);
}

#[test]
fn what_leads_out_of_the_chart_is_refused() {
    for path in ["s/../../etc/x", "/s/x", "x", "s/.."] {
        assert!(matches!(unpack(&packed(&[(path, b"x", FILE)])), Err(Error::Chart(_))), "{path}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Block] {
        assert!(matches!(unpack(&packed(&[("s/x", b"", kind)])), Err(Error::Chart(_))), "{kind:?}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    for bytes in [b"".as_slice(), b"text", &zipped(b"text"), &packed(&[])] {
        assert!(unpack(bytes).is_err());
    }
}

#[test]
fn an_archive_holds_only_so_much() {
    let file = |bytes: usize| packed(&[("s/x", &vec![b' '; bytes], FILE)]);
    assert!(unpack(&file(chart::BYTES_MAX)).is_ok());
    assert!(matches!(unpack(&file(chart::BYTES_MAX + 1)), Err(Error::Limit(_))));
    let names: Vec<String> = (0..=chart::FILES_MAX).map(|number| format!("s/{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), b"".as_slice(), FILE)).collect();
    assert!(unpack(&packed(&files[1..])).is_ok());
    assert!(matches!(unpack(&packed(&files)), Err(Error::Limit(_))));
}

#[test]
fn archives_in_a_chart_unpack_to_only_so_much_together() {
    let half = vec![b' '; chart::BYTES_MAX / 2];
    let inner = packed(&[("s/Chart.yaml", CHART, FILE), ("s/x", &half, FILE)]);
    let with = |archives: usize| {
        let names: Vec<String> = (0..archives).map(|number| format!("p/charts/s{number}.tgz")).collect();
        let mut files = vec![("p/Chart.yaml", CHART, FILE)];
        files.extend(names.iter().map(|name| (name.as_str(), inner.as_slice(), FILE)));
        Chart::load(&unpack(&packed(&files)).unwrap())
    };
    assert!(with(1).is_ok());
    assert!(matches!(with(2), Err(Error::Limit(_))));
}

#[test]
fn an_archive_of_several_gzip_members_is_read_whole() {
    let mut tar = Vec::new();
    let archive = packed(&[("s/Chart.yaml", CHART, FILE), ("s/templates/t", b"x", FILE)]);
    flate2::read::GzDecoder::new(&archive[..]).read_to_end(&mut tar).unwrap();
    let (start, end) = tar.split_at(tar.len() / 2);
    let members = [zipped(start), zipped(end)].concat();
    assert_eq!(unpack(&members).unwrap(), unpack(&archive).unwrap());
    assert!(unpack(&[&members[..], b"x"].concat()).is_err());
}

#[test]
fn a_file_of_what_is_ignored_has_only_so_many_rules_of_such_a_length() {
    use helm::chart::ignore::{RULE_MAX, RULES_MAX, kept};
    let folder = |rules: String| Files::from([(".helmignore".to_owned(), rules.into_bytes().into())]);
    assert!(kept(&folder("x\n".repeat(RULES_MAX))).is_ok());
    assert!(matches!(kept(&folder("x\n".repeat(RULES_MAX + 1))), Err(Error::Limit(_))));
    assert!(kept(&folder("x".repeat(RULE_MAX))).is_ok());
    assert!(matches!(kept(&folder("x".repeat(RULE_MAX + 1))), Err(Error::Limit(_))));
}
