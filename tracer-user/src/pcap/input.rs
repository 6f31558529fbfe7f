//! Where the bytes come from: a file, a pipe or standard input, compressed or not.
//!
//! What goes out is always the capture itself; gzip and zstd are known by their first bytes, never by
//! the file's name.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Chain, Cursor, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::PcapError;

/// RFC 1952 section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878 section 3.1.1.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes, from wherever.
pub(super) type Input = Box<dyn Read + Send>;

/// Opens `path`; `-` is standard input.
pub(super) fn open(path: &Path) -> Result<Input, PcapError> {
    let unopened = |source| PcapError::Open {
        path: path.to_owned(),
        source,
    };
    let file: Input = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(unopened)?)
    };
    plain(file).map_err(unopened)
}

/// The bytes of `input`, decompressed where they are compressed.
pub(super) fn plain(mut input: Input) -> io::Result<Input> {
    let mut first = Vec::with_capacity(ZSTD.len());
    (&mut input)
        .take(ZSTD.len() as u64)
        .read_to_end(&mut first)?;
    let (gzip, zstd) = (first.starts_with(&GZIP), first.starts_with(&ZSTD));
    let whole = Cursor::new(first).chain(input);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(Frames::Between(BufReader::new(whole)))
    } else {
        Box::new(whole)
    })
}

type Whole = BufReader<Chain<Cursor<Vec<u8>>, Input>>;

/// All frames of a zstd file, one after the other (`cat a.zst b.zst`, `pzstd`).
enum Frames {
    Between(Whole),
    Within(Box<StreamingDecoder<Whole, FrameDecoder>>),
    Over,
}

impl Read for Frames {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            *self = match std::mem::replace(self, Self::Over) {
                Self::Over => return Ok(0),
                Self::Between(mut input) => {
                    if input.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new(input).map_err(io::Error::other)?;
                    Self::Within(Box::new(frame))
                }
                Self::Within(mut frame) => match frame.read(room)? {
                    0 if !room.is_empty() => Self::Between(frame.into_inner()),
                    read => {
                        *self = Self::Within(frame);
                        return Ok(read);
                    }
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(bytes: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        plain(Box::new(Cursor::new(bytes)))
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn what_is_not_compressed_comes_as_it_is() {
        for bytes in [&b""[..], b"a", b"abcd", b"abcdefgh"] {
            assert_eq!(read(bytes.to_vec()), bytes);
        }
    }

    #[test]
    fn gzip_members_and_zstd_frames_follow_each_other() {
        let gzip = |text: &[u8]| {
            let mut writer =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        };
        assert_eq!(read([gzip(b"one "), gzip(b"two")].concat()), b"one two");
        let zstd = |text: &[u8]| {
            ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
        };
        assert_eq!(read([zstd(b"one "), zstd(b"two")].concat()), b"one two");
    }
}
