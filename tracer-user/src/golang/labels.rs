//! pprof labels, which a goroutine names by one pointer (`g.labels`).
//!
//! In: such pointers. Out: keys and values. The pointer leads to a `runtime/pprof.labelMap`
//! (`src/runtime/pprof/label.go`): up to 1.23 a map of strings, from 1.24 on a slice in the order of keys.
//! Nobody changes one that a goroutine carries, but it is freed when none does. So what is read holds for a
//! goroutine that had the same pointer before and after, and for no other. Programs may also set a pointer
//! of their own there (by `go:linkname`): what does not read like labels gives none. Numbers and lengths
//! are bounded, chains end, and texts share one allowance.

use std::{collections::HashMap, sync::Arc};

use super::{
    GoError,
    process_memory::{Memory, Want},
};
use crate::event::{Labelled, Labels, Pid};

/// Keys and values, in the order of the keys.
pub(super) type Set = Arc<Vec<(String, String)>>;

/// More labels than this on one goroutine are taken for something else.
const MOST: usize = 64;
/// Buckets of a map that are looked at; so many labels need far fewer.
const MOST_BUCKETS: usize = 32;
/// What is read of a key or a value.
const LONGEST: usize = 256;
/// A longer key or value is taken for something else.
const ABSURD: u64 = 1 << 20;

/// How a minor version keeps labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `map[string]string` (`runtime.hmap`, `src/runtime/map.go`).
    Map,
    /// `struct { list []label }`.
    List,
}

impl Form {
    pub(super) fn of(minor: u32) -> Self {
        match minor {
            ..=23 => Self::Map,
            24.. => Self::List,
        }
    }
}

/// The labels that a goroutine carries.
#[derive(Clone)]
pub(super) enum Carried {
    None,
    Set(Set),
    /// Some that could not be read.
    Unread,
}

/// Brings together who carries the same.
#[derive(Default)]
pub(super) struct Gathered {
    sets: HashMap<Set, Vec<u64>>,
    unread: u64,
}

impl Gathered {
    pub(super) fn take(&mut self, goroutine: u64, carried: Carried) {
        match carried {
            Carried::Set(set) if !set.is_empty() => {
                self.sets.entry(set).or_default().push(goroutine);
            }
            Carried::Unread => self.unread += 1,
            Carried::None | Carried::Set(_) => {}
        }
    }

    /// All of them, in the order of the labels.
    pub(super) fn end(self, pid: Pid) -> Labels {
        let sets = self.sets.into_iter();
        let mut sets: Vec<Labelled> = sets
            .map(|(labels, goroutines)| Labelled {
                labels: Arc::unwrap_or_clone(labels),
                goroutines,
            })
            .collect();
        sets.sort_by(|one, other| one.labels.cmp(&other.labels));
        Labels {
            pid,
            sets,
            unread: self.unread,
        }
    }
}

/// The head of a Go string.
#[derive(Clone, Copy)]
struct Text {
    address: u64,
    length: u64,
}

/// Keys and values as their strings' heads; `None` for what does not read like labels.
type Heads = Option<Vec<[Text; 2]>>;

/// What each of `pointers` leads to, as far as it reads like labels. `allowance` is how many bytes of texts may
/// be read, and goes down by those that were.
pub(super) fn read(
    memory: &dyn Memory,
    form: Form,
    pointers: &[u64],
    allowance: &mut usize,
) -> Result<HashMap<u64, Set>, GoError> {
    let heads = match form {
        Form::Map => of_maps(memory, pointers)?,
        Form::List => of_lists(memory, pointers)?,
    };
    let mut found = HashMap::with_capacity(pointers.len());
    let mut known: Vec<(u64, Vec<[Text; 2]>)> = Vec::new();
    for (pointer, heads) in pointers.iter().zip(heads) {
        let Some(heads) = heads.filter(|heads| heads.iter().flatten().all(is_plausible)) else {
            continue;
        };
        let bytes: usize = heads.iter().flatten().map(|text| text.told()).sum();
        if let Some(left) = allowance.checked_sub(bytes) {
            *allowance = left;
            known.push((*pointer, heads));
        }
    }
    let texts: Vec<Text> = known
        .iter()
        .flat_map(|(_, heads)| heads.iter().flatten().copied())
        .collect();
    let mut texts = self::texts(memory, &texts)?.into_iter();
    for (pointer, heads) in known {
        let pairs: Vec<Option<(String, String)>> = heads
            .iter()
            .map(|_| texts.next().flatten().zip(texts.next().flatten()))
            .collect();
        let Some(mut labels) = pairs.into_iter().collect::<Option<Vec<_>>>() else {
            continue;
        };
        if form == Form::Map {
            labels.sort();
        }
        let in_order = labels
            .iter()
            .zip(labels.iter().skip(1))
            .all(|((one, _), (next, _))| one < next || one.ends_with(CUT));
        if in_order {
            found.insert(pointer, Arc::new(labels));
        }
    }
    Ok(found)
}

fn is_plausible(text: &Text) -> bool {
    text.length < ABSURD && (text.length == 0 || text.address != 0)
}

/// Slices of keys and values.
fn of_lists(memory: &dyn Memory, pointers: &[u64]) -> Result<Vec<Heads>, GoError> {
    const LABEL: usize = 32;
    let places: Vec<(u64, usize)> = pointers.iter().map(|pointer| (*pointer, 24)).collect();
    let slices: Vec<Option<(u64, usize)>> = records(memory, &places)?
        .into_iter()
        .map(|slice| {
            let [address, length, capacity] = words(&slice?)?;
            let length = usize::try_from(length).ok()?;
            let whole = length <= MOST && capacity >= length as u64 && address % 8 == 0;
            whole.then(|| (address, length * LABEL))
        })
        .collect();
    let places: Vec<(u64, usize)> = slices
        .iter()
        .map(|place| place.unwrap_or_default())
        .collect();
    let lists = records(memory, &places)?;
    Ok(slices
        .into_iter()
        .zip(lists)
        .map(|(slice, list)| {
            slice?;
            list?.chunks_exact(LABEL).map(label).collect()
        })
        .collect())
}

fn label(bytes: &[u8]) -> Option<[Text; 2]> {
    let [key, key_length, value, value_length] = words(bytes)?;
    Some([
        Text {
            address: key,
            length: key_length,
        },
        Text {
            address: value,
            length: value_length,
        },
    ])
}

/// A map that is being read.
struct Map {
    /// Where in the answer it goes.
    place: usize,
    count: usize,
    labels: Vec<[Text; 2]>,
    buckets: usize,
}

/// One bucket of `map[string]string`: eight marks, eight keys, eight values, and the next bucket.
const BUCKET: usize = 8 + 8 * 16 + 8 * 16 + 8;
/// Marks below this stand for cells that are empty, or were moved to a new bucket (`minTopHash`).
const FILLED: u8 = 5;
/// `sameSizeGrow`: the old buckets are as many as the new ones.
const SAME_SIZE: u8 = 8;

/// Maps. One that was growing when it was last written to keeps a part in its old buckets.
fn of_maps(memory: &dyn Memory, pointers: &[u64]) -> Result<Vec<Heads>, GoError> {
    let mut found: Vec<Heads> = pointers.iter().map(|_| None).collect();
    let places: Vec<(u64, usize)> = pointers.iter().map(|pointer| (*pointer, 8)).collect();
    let places: Vec<(u64, usize)> = records(memory, &places)?
        .into_iter()
        .map(|word| {
            (
                word.and_then(|word| words(&word)).map_or(0, |[word]| word),
                40,
            )
        })
        .collect();
    let mut maps: Vec<Map> = Vec::new();
    // Which map, where, and how many buckets.
    let mut arrays: Vec<(usize, u64, usize)> = Vec::new();
    for (place, head) in records(memory, &places)?.into_iter().enumerate() {
        let Some([count, bits, buckets, old, _]) = head.and_then(|head| words(&head)) else {
            continue;
        };
        let [flags, doublings, ..] = bits.to_le_bytes();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let number = 1_usize.checked_shl(doublings.into()).unwrap_or(usize::MAX);
        if count > MOST || number > MOST_BUCKETS || buckets % 8 != 0 || old % 8 != 0 {
            continue;
        }
        let map = maps.len();
        maps.push(Map {
            place,
            count,
            labels: Vec::new(),
            buckets: 0,
        });
        if buckets != 0 {
            arrays.push((map, buckets, number));
        }
        if old != 0 {
            let of_old = if flags & SAME_SIZE == 0 {
                number / 2
            } else {
                number
            };
            arrays.push((map, old, of_old));
        }
    }
    while !arrays.is_empty() {
        let places: Vec<(u64, usize)> = arrays
            .iter()
            .map(|(_, address, number)| (*address, number * BUCKET))
            .collect();
        let mut overflow = Vec::new();
        for ((index, ..), bytes) in arrays.iter().zip(records(memory, &places)?) {
            let (Some(map), Some(bytes)) = (maps.get_mut(*index), bytes) else {
                continue;
            };
            for bucket in bytes.chunks_exact(BUCKET) {
                map.buckets += 1;
                if let Some(next) = map.take(bucket)
                    && map.buckets < MOST_BUCKETS
                {
                    overflow.push((*index, next, 1));
                }
            }
        }
        arrays = overflow;
    }
    for map in maps {
        if let Some(found) = found.get_mut(map.place)
            && map.labels.len() == map.count
        {
            *found = Some(map.labels);
        }
    }
    Ok(found)
}

impl Map {
    /// Takes what is in a bucket; gives where the next one lies.
    fn take(&mut self, bucket: &[u8]) -> Option<u64> {
        let (marks, rest) = bucket.split_at_checked(8)?;
        let (keys, rest) = rest.split_at_checked(8 * 16)?;
        let (values, next) = rest.split_at_checked(8 * 16)?;
        let cells = keys.chunks_exact(16).zip(values.chunks_exact(16));
        for (_, (key, value)) in marks.iter().zip(cells).filter(|(mark, _)| **mark >= FILLED) {
            let text = |bytes| {
                let [address, length] = words(bytes)?;
                Some(Text { address, length })
            };
            self.labels.push([text(key)?, text(value)?]);
        }
        let [next] = words(next)?;
        (next != 0 && next % 8 == 0).then_some(next)
    }
}

/// Ends a text that is longer than what is told of it.
const CUT: char = '…';

impl Text {
    /// How many of its bytes are.
    fn told(&self) -> usize {
        usize::try_from(self.length).unwrap_or(LONGEST).min(LONGEST)
    }
}

fn texts(memory: &dyn Memory, texts: &[Text]) -> Result<Vec<Option<String>>, GoError> {
    let places: Vec<(u64, usize)> = texts
        .iter()
        .map(|text| (text.address, text.told()))
        .collect();
    let read = records(memory, &places)?;
    Ok(texts
        .iter()
        .zip(read)
        .map(|(text, bytes)| {
            let mut told = String::from_utf8_lossy(&bytes?).into_owned();
            if text.length > LONGEST as u64 {
                told.push(CUT);
            }
            Some(told)
        })
        .collect())
}

/// Reads from many places at once, so many bytes each; `None` where there is no memory.
fn records(memory: &dyn Memory, places: &[(u64, usize)]) -> Result<Vec<Option<Vec<u8>>>, GoError> {
    let mut buffers: Vec<Vec<u8>> = places.iter().map(|(_, length)| vec![0; *length]).collect();
    let mut wants: Vec<Want<'_>> = places
        .iter()
        .zip(&mut buffers)
        .map(|((address, _), buffer)| Want::new(*address, buffer))
        .collect();
    memory.read_each(&mut wants)?;
    let read: Vec<bool> = wants.iter().map(|want| want.read).collect();
    Ok(buffers
        .into_iter()
        .zip(read)
        // Where nothing is wanted, nothing can fail.
        .map(|(buffer, read)| (read || buffer.is_empty()).then_some(buffer))
        .collect())
}

/// The first words of `bytes`.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, _) = bytes.as_chunks::<8>();
    let words = words.first_chunk::<N>()?;
    Some(words.map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::{
        super::made_up::{BEGIN, paper},
        *,
    };

    /// What the word at `BEGIN` leads to, as a set of labels.
    fn told(form: Form, words: &[u64]) -> Option<Vec<(String, String)>> {
        let mut allowance = 1 << 20;
        let memory = paper(words.to_vec());
        let read = read(&memory, form, &[BEGIN], &mut allowance).unwrap();
        read.get(&BEGIN).map(|set| set.to_vec())
    }

    /// The address of a word.
    fn at(word: usize) -> u64 {
        BEGIN + 8 * word as u64
    }

    /// `k: v` in a slice at word 4; the texts at words 20 and 21.
    fn list() -> Vec<u64> {
        let mut words = vec![0; 32];
        words[..3].copy_from_slice(&[at(4), 1, 1]);
        words[4..8].copy_from_slice(&[at(20), 1, at(21), 1]);
        words[20..22].copy_from_slice(&[u64::from(b'k'), u64::from(b'v')]);
        words
    }

    /// The same in a map of one bucket at word 8.
    fn map() -> Vec<u64> {
        let mut words = vec![0; 64];
        words[..4].copy_from_slice(&[at(1), 1, 0, at(8)]);
        // The first cell is filled.
        words[8] = 0x21;
        words[9..11].copy_from_slice(&[at(60), 1]);
        words[25..27].copy_from_slice(&[at(61), 1]);
        words[60..62].copy_from_slice(&[u64::from(b'k'), u64::from(b'v')]);
        words
    }

    #[test]
    fn a_label_is_read_from_either_form() {
        let expected = Some(vec![("k".to_owned(), "v".to_owned())]);
        assert_eq!(told(Form::List, &list()), expected);
        assert_eq!(told(Form::Map, &map()), expected);
        assert_eq!(told(Form::List, &[0; 32]), Some(Vec::new()));
    }

    #[test]
    fn a_slice_that_lies_gives_no_labels() {
        for (place, wrong) in [
            (0, 8),
            (0, at(4) + 1),
            (0, at(1 << 20)),
            (1, 1 << 60),
            (1, u64::MAX),
            (1, 65),
            (1, 2),
            (2, 0),
            (4, 0),
            (4, u64::MAX),
            (5, 1 << 60),
            (6, at(31) + 8),
        ] {
            let mut words = list();
            words[place] = wrong;
            assert_eq!(told(Form::List, &words), None, "{place} {wrong:#x}");
        }
    }

    #[test]
    fn a_map_that_lies_gives_no_labels_and_ends() {
        for (place, wrong) in [
            (0, 0),
            (0, u64::MAX - 3),
            (1, 1 << 60),
            (1, 2),
            // 2^60 buckets, then as many as there may not be.
            (2, 60 << 8),
            (2, 6 << 8),
            (3, at(8) + 4),
            (3, at(63)),
            (8, 0x2121),
            (10, u64::MAX),
        ] {
            let mut words = map();
            words[place] = wrong;
            assert_eq!(told(Form::Map, &words), None, "{place} {wrong:#x}");
        }
        // Its only bucket is the one that follows it.
        let mut words = map();
        words[41] = at(8);
        assert_eq!(told(Form::Map, &words), None);
    }

    #[test]
    fn what_is_too_much_for_all_together_is_left_out() {
        let memory = paper(list());
        let mut allowance = 1;
        let read = read(&memory, Form::List, &[BEGIN], &mut allowance).unwrap();
        assert!(read.is_empty());
        assert_eq!(allowance, 1);
    }

    #[test]
    fn a_long_text_is_told_by_its_beginning() {
        let mut words = list();
        words.resize(200, u64::from_le_bytes(*b"abcdefgh"));
        words[6..8].copy_from_slice(&[at(40), 1_000]);
        let labels = told(Form::List, &words).unwrap();
        assert_eq!(labels[0].1.len(), LONGEST + CUT.len_utf8());
        assert!(labels[0].1.ends_with("gh…"));
    }
}
