//! What a `perf.data` holds and lacks, by perf.data-file-format.txt of the kernel's tools/perf.

/// Numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) samples: u64,
    /// Events that the kernel had no room for.
    pub(super) lost: u64,
}

/// `PERF_RECORD_LOST`, `PERF_RECORD_SAMPLE` and `PERF_RECORD_LOST_SAMPLES` of perf_event_open(2).
const LOST: u32 = 2;
const SAMPLE: u32 = 9;
const LOST_SAMPLES: u32 = 13;

/// Where the header tells the data's offset and size.
const DATA: usize = 40;

pub(super) fn told(file: &[u8]) -> Option<Told> {
    file.strip_prefix(b"PERFILE2")?;
    let offset = usize::try_from(number(file, DATA)?).ok()?;
    let size = usize::try_from(number(file, DATA + 8)?).ok()?;
    let mut rest = file.get(offset..offset.checked_add(size)?)?;
    let mut told = Told::default();
    while let Some(header) = rest.first_chunk::<8>() {
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::from(u16::from_le_bytes([header[6], header[7]])).max(8);
        match kind {
            SAMPLE => told.samples += 1,
            // After the header comes the event's id.
            LOST => told.lost += number(rest, 16)?,
            LOST_SAMPLES => told.lost += number(rest, 8)?,
            _ => {}
        }
        rest = rest.get(length..)?;
    }
    Some(told)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[u64]) -> Vec<u8> {
        let length = u16::try_from(8 + 8 * body.len()).unwrap();
        let mut record = kind.to_le_bytes().to_vec();
        record.extend([0, 0]);
        record.extend(length.to_le_bytes());
        record.extend(body.iter().flat_map(|word| word.to_le_bytes()));
        record
    }

    #[test]
    fn samples_and_losses_are_summed() {
        let data = [
            record(SAMPLE, &[1, 2]),
            record(LOST, &[7, 30]),
            record(SAMPLE, &[]),
            record(LOST_SAMPLES, &[12]),
        ]
        .concat();
        let mut file = b"PERFILE2".to_vec();
        for word in [104, 0, 0, 0, 56, data.len() as u64] {
            file.extend(u64::to_le_bytes(word));
        }
        let samples_and_losses = Told {
            samples: 2,
            lost: 42,
        };
        file.extend(data);
        assert_eq!(told(&file), Some(samples_and_losses));
    }

    #[test]
    fn what_breaks_off_is_refused() {
        assert_eq!(told(b"PERFILE2 and no more"), None);
    }
}
