//! Values as they are kept. New ones are as they were written, for watchers and readers that come right after; old ones are packed:
//! what values of one sort have in common (the same fields, the same owners of fields) is kept once, as a dictionary.
//!
//! LZ4, because it is unpacked at each read: about a microsecond for a KiB. Dictionaries are parts of values, shared by all
//! stores of the process, and never change; their number is limited, and what finds none is packed by itself.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use lz4_flex::block;
use parking_lot::Mutex;

/// Dictionaries of the process.
const DICTIONARIES_MAX: usize = 512;
/// Bytes of one. Objects say first what they have in common.
const DICTIONARY_BYTES: usize = 2 << 10;
/// Values that begin with the same text are of one sort. What begins otherwise (encrypted values) has nothing in common with others.
const SORT_BYTES: usize = 32;
/// Dictionaries of one sort: a new one is made when the last one helps little.
const SORT_DICTIONARIES_MAX: u8 = 4;
/// Values that a dictionary may be of little help to before the next one is made.
const MISSES_MAX: u8 = 16;

/// In the place of a dictionary: there is none.
const NO_DICTIONARY: u16 = u16::MAX;
/// In the place of a dictionary: the value is not packed at all, for it would not be shorter.
const AS_IT_IS: u16 = u16::MAX - 1;
/// The dictionary and the value's length come before the packed bytes.
const HEAD_BYTES: usize = 2 + 4;

static DICTIONARIES: [OnceLock<Box<[u8]>>; DICTIONARIES_MAX] = [const { OnceLock::new() }; DICTIONARIES_MAX];
static SORTS: Mutex<Option<Sorts>> = Mutex::new(None);

#[derive(Default)]
struct Sorts {
    known: HashMap<[u8; SORT_BYTES], Sort>,
    /// How many dictionaries there are.
    made: u16,
}

#[derive(Clone, Copy)]
struct Sort {
    dictionary: u16,
    made: u8,
    misses: u8,
}

fn dictionary(id: u16) -> &'static [u8] {
    DICTIONARIES.get(usize::from(id)).and_then(OnceLock::get).map_or(&[], |bytes| bytes)
}

impl Sorts {
    fn make(&mut self, value: &[u8]) -> Option<u16> {
        let id = self.made;
        let place = DICTIONARIES.get(usize::from(id))?;
        place.set(value[..value.len().min(DICTIONARY_BYTES)].into()).ok()?;
        self.made += 1;
        Some(id)
    }

    /// The dictionary for values like this one.
    fn find(&mut self, value: &[u8]) -> u16 {
        let Some(sort) = value.first_chunk() else { return NO_DICTIONARY };
        if !sort.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return NO_DICTIONARY;
        }
        if let Some(sort) = self.known.get(sort) {
            return sort.dictionary;
        }
        let Some(dictionary) = self.make(value) else { return NO_DICTIONARY };
        self.known.insert(*sort, Sort { dictionary, made: 1, misses: 0 });
        dictionary
    }

    /// A dictionary was of little help.
    fn miss(&mut self, value: &[u8]) {
        let Some(mut sort) = value.first_chunk().and_then(|sort| self.known.get(sort)).copied() else { return };
        sort.misses += 1;
        if sort.misses == MISSES_MAX {
            sort.misses = 0;
            if sort.made < SORT_DICTIONARIES_MAX {
                sort.made += 1;
                sort.dictionary = self.make(value).unwrap_or(sort.dictionary);
            }
        }
        if let Some(known) = value.first_chunk().and_then(|name| self.known.get_mut(name)) {
            *known = sort;
        }
    }
}

fn pack(value: &[u8]) -> Arc<[u8]> {
    let id = SORTS.lock().get_or_insert_default().find(value);
    let common = dictionary(id);
    let mut out = vec![0; HEAD_BYTES + block::get_maximum_output_size(value.len())];
    let body = &mut out[HEAD_BYTES..];
    let written = match id {
        NO_DICTIONARY => block::compress_into(value, body),
        _ => block::compress_into_with_dict(value, body, common),
    };
    let written = written.ok().filter(|written| *written < value.len());
    if id != NO_DICTIONARY && written.is_none_or(|written| written > value.len() / 2) {
        SORTS.lock().get_or_insert_default().miss(value);
    }
    let id = match written {
        Some(written) => {
            out.truncate(HEAD_BYTES + written);
            id
        }
        None => {
            out.truncate(HEAD_BYTES);
            out.extend_from_slice(value);
            AS_IT_IS
        }
    };
    let length =
        u32::try_from(value.len()).expect("a value is shorter than 4 GiB: Limits::value_bytes, and etcd's own limits");
    out[..2].copy_from_slice(&id.to_le_bytes());
    out[2..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    out.into()
}

/// The dictionary, the value's length, and the rest.
fn parts(packed: &[u8]) -> (u16, usize, &[u8]) {
    let (id, rest) = packed.split_first_chunk().expect("packed by pack()");
    let (length, body) = rest.split_first_chunk().expect("packed by pack()");
    (u16::from_le_bytes(*id), u32::from_le_bytes(*length) as usize, body)
}

fn unpack(packed: &[u8]) -> Bytes {
    let (id, length, body) = parts(packed);
    if id == AS_IT_IS {
        return Bytes::copy_from_slice(body);
    }
    let mut out = vec![0; length];
    let done = match id {
        NO_DICTIONARY => block::decompress_into(body, &mut out),
        _ => block::decompress_into_with_dict(body, &mut out, dictionary(id)),
    };
    assert!(done.is_ok_and(|written| written == length), "packed by pack(), with a dictionary that does not change");
    out.into()
}

#[derive(Clone, Debug)]
enum Repr {
    /// None: the key was deleted.
    Plain(Option<Arc<Bytes>>),
    Packed(Arc<[u8]>),
}

/// A value, or that there is none; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Held(Repr);

// There is one for each version of each key.
const _: () = assert!(size_of::<Held>() <= 16);

impl From<Option<Bytes>> for Held {
    fn from(value: Option<Bytes>) -> Self {
        Self(Repr::Plain(value.map(Arc::new)))
    }
}

impl Held {
    pub fn get(&self) -> Option<Bytes> {
        match &self.0 {
            Repr::Plain(value) => value.as_deref().cloned(),
            Repr::Packed(packed) => Some(unpack(packed)),
        }
    }

    pub fn is_none(&self) -> bool {
        matches!(self.0, Repr::Plain(None))
    }

    /// Whether packing would change it.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Repr::Plain(Some(_)))
    }

    pub fn packed(&self) -> Self {
        match &self.0 {
            Repr::Plain(Some(value)) => Self(Repr::Packed(pack(value))),
            Repr::Plain(None) | Repr::Packed(_) => self.clone(),
        }
    }

    /// Bytes of the value as it was written.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Plain(value) => value.as_ref().map_or(0, |value| value.len()),
            Repr::Packed(packed) => parts(packed).1,
        }
    }

    /// Bytes that it takes.
    pub fn kept_bytes(&self) -> usize {
        match &self.0 {
            Repr::Plain(_) => self.len(),
            Repr::Packed(packed) => packed.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, number: usize) -> Bytes {
        let managed = r#""managedFields":[{"manager":"kubectl","operation":"Update","fieldsType":"FieldsV1","fieldsV1":{"f:data":{}}}]"#;
        format!(r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"name":"object-{number}",{managed}}},"data":{{"n":"{number}"}}}}"#)
            .into()
    }

    #[test]
    fn what_is_packed_is_read_as_it_was_written() {
        let noise: Vec<u8> = (0..5_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let values = [Bytes::new(), "x".into(), "y".repeat(100_000).into(), noise.into(), object("Noise", 1)];
        for value in values {
            let held = Held::from(Some(value.clone()));
            let packed = held.packed();
            assert!(held.is_plain() && !packed.is_plain() && !packed.is_none());
            assert_eq!((packed.get(), packed.len()), (Some(value.clone()), value.len()));
            assert!(packed.kept_bytes() <= value.len() + HEAD_BYTES);
        }
        let none = Held::from(None);
        assert!(none.packed().is_none() && none.get().is_none() && none.len() == 0);
    }

    #[test]
    fn values_of_one_sort_take_a_fraction_of_their_size() {
        let all: Vec<_> = (0..100).map(|number| object("ThingOfOneSort", number)).collect();
        let packed: Vec<_> = all.iter().map(|value| Held::from(Some(value.clone())).packed()).collect();
        let (plain, kept): (usize, usize) =
            (all.iter().map(Bytes::len).sum(), packed.iter().map(Held::kept_bytes).sum());
        assert!(kept * 3 < plain, "{kept} of {plain}");
        assert!(all.iter().zip(&packed).all(|(value, packed)| packed.get().as_ref() == Some(value)));
    }

    #[test]
    fn there_are_no_more_dictionaries_than_the_limit() {
        let mut sorts = Sorts { known: HashMap::new(), made: u16::try_from(DICTIONARIES_MAX).unwrap() };
        assert_eq!(sorts.find(&[7; 100]), NO_DICTIONARY);
        assert_eq!(sorts.find(b"short"), NO_DICTIONARY);
        assert!(sorts.known.is_empty());
    }

    #[test]
    fn values_that_do_not_begin_with_text_use_up_no_dictionaries() {
        let mut sorts = Sorts::default();
        for number in 0..1_000_u32 {
            let sealed = [b"k8s:enc:aesgcm:v1:key:".as_slice(), &[0xa5; 6], &number.to_be_bytes(), &[0; 100]].concat();
            assert_eq!(sorts.find(&sealed), NO_DICTIONARY);
        }
        assert!(sorts.known.is_empty());
    }

    #[test]
    fn a_sort_gets_a_better_dictionary_a_few_times() {
        let value = |number: usize| -> Bytes {
            let text: String = (0..400).map(|i| char::from(b'a' + ((i * i + number * 7919 * i) % 26) as u8)).collect();
            format!("{}{text}", "one sort that has little in common").into()
        };
        for number in 0..1_000 {
            let value = value(number);
            assert_eq!(Held::from(Some(value.clone())).packed().get(), Some(value));
        }
        let sorts = SORTS.lock();
        let known = &sorts.as_ref().unwrap().known[value(0).first_chunk::<SORT_BYTES>().unwrap()];
        assert!((1..=SORT_DICTIONARIES_MAX).contains(&known.made));
    }
}
