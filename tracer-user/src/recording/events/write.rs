//! Events to blocks.

use std::io;

use zerocopy::IntoBytes;

use super::{
    super::whole_blocks::{Medium, WholeBlocks},
    BLOCK_LIMIT, BLOCK_SIZE, BlockHeader, EVENT_LIMIT, FORMAT, FileHeader, MAGIC,
};
use crate::event::{BootInstant, Event};

/// Writes `events.gpl`. Its buffers are kept, so that an event costs no allocation.
pub(in crate::recording) struct EventWriter<M: Medium> {
    file: WholeBlocks<M>,
    /// The payload of the block in the making, and the times in it.
    payload: Vec<u8>,
    count: u32,
    span: Option<Span>,
    events: u64,
}

#[derive(Clone, Copy)]
struct Span {
    first: BootInstant,
    last: BootInstant,
}

impl Span {
    fn around(span: Option<Self>, at: BootInstant) -> Self {
        span.map_or(
            Self {
                first: at,
                last: at,
            },
            |span| Self {
                first: span.first.min(at),
                last: span.last.max(at),
            },
        )
    }
}

impl<M: Medium> EventWriter<M> {
    /// Begins an empty file; its header is on the medium when this returns.
    pub(in crate::recording) fn new(medium: M) -> io::Result<Self> {
        let mut file = WholeBlocks::new(medium);
        let header = FileHeader {
            magic: MAGIC,
            format: FORMAT.into(),
        };
        file.block(&[header.as_bytes()])?;
        file.write_pending()?;
        Ok(Self {
            file,
            payload: Vec::with_capacity(2 * BLOCK_SIZE),
            count: 0,
            span: None,
            events: 0,
        })
    }

    /// Takes one event.
    pub(in crate::recording) fn event(&mut self, event: &Event) -> io::Result<()> {
        let start = self.payload.len();
        if let Err(error) = encode(event, &mut self.payload) {
            self.payload.truncate(start);
            return Err(error);
        }
        self.events += 1;
        if self.payload.len() > BLOCK_LIMIT {
            let large = self.payload.split_off(start);
            self.seal()?;
            return self.spread(&large, event.at);
        }
        self.count += 1;
        self.span = Some(Span::around(self.span, event.at));
        if self.payload.len() >= BLOCK_SIZE {
            self.seal()?;
        }
        Ok(())
    }

    /// Hands everything taken so far to the medium.
    pub(in crate::recording) fn flush(&mut self) -> io::Result<()> {
        self.seal()?;
        self.file.write_pending()
    }

    /// Events taken.
    pub(in crate::recording) fn events(&self) -> u64 {
        self.events
    }

    pub(in crate::recording) fn medium(&self) -> &M {
        self.file.medium()
    }

    /// Ends the block in the making.
    fn seal(&mut self) -> io::Result<()> {
        let Some(span) = self.span.take() else {
            return Ok(());
        };
        let outcome = block(&mut self.file, self.count, span, &self.payload);
        self.count = 0;
        self.payload.clear();
        outcome
    }

    /// Writes one event over as many blocks as it takes.
    fn spread(&mut self, encoded: &[u8], at: BootInstant) -> io::Result<()> {
        let span = Span::around(None, at);
        let mut parts = encoded.chunks(BLOCK_LIMIT).peekable();
        while let Some(part) = parts.next() {
            let ends = u32::from(parts.peek().is_none());
            block(&mut self.file, ends, span, part)?;
        }
        Ok(())
    }
}

impl<M: Medium> Drop for EventWriter<M> {
    fn drop(&mut self) {
        // A capture that ends early keeps what it had.
        let _ = self.seal();
    }
}

/// Appends the event's length and its bytes.
fn encode(event: &Event, payload: &mut Vec<u8>) -> io::Result<()> {
    const LENGTH: usize = size_of::<u32>();
    let start = payload.len();
    payload.extend_from_slice(&[0; LENGTH]);
    postcard::to_io(event, &mut *payload).map_err(io::Error::other)?;
    let length = payload.len() - start - LENGTH;
    if length > EVENT_LIMIT {
        return Err(io::Error::other(format!(
            "an event of {length} bytes is larger than {EVENT_LIMIT}"
        )));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    if let Some(field) = payload.get_mut(start..start + LENGTH) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

fn block<M: Medium>(
    file: &mut WholeBlocks<M>,
    count: u32,
    span: Span,
    payload: &[u8],
) -> io::Result<()> {
    let mut header = BlockHeader {
        length: u32::try_from(payload.len())
            .map_err(io::Error::other)?
            .into(),
        count: count.into(),
        first: span.first.0.into(),
        last: span.last.0.into(),
        checksum: 0.into(),
    };
    header.checksum = header.sum(payload).into();
    file.block(&[header.as_bytes(), payload])
}
