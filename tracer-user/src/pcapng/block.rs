//! One pcapng block in the making.
//!
//! In: fields and options in their order. Out: the block's bytes, with both lengths filled in.
//! The buffer is kept from block to block, so a packet costs no allocation.

/// The blocks that a gopulse capture is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SectionHeader = 0x0A0D_0D0A,
    InterfaceDescription = 1,
    InterfaceStatistics = 5,
    EnhancedPacket = 6,
    /// One entry of a journal, in systemd's export format.
    SystemdJournal = 9,
}

#[derive(Default)]
pub(super) struct Block(Vec<u8>);

impl Block {
    /// Where the first of the two lengths stands.
    const LENGTH: std::ops::Range<usize> = 4..8;

    pub(super) fn begin(&mut self, kind: Kind) -> &mut Self {
        self.0.clear();
        self.u32(kind as u32).u32(0)
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Bytes, then zeros up to the next 32-bit boundary.
    pub(super) fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes(bytes);
        let aligned = self.0.len().next_multiple_of(4);
        self.0.resize(aligned, 0);
        self
    }

    /// An option; its value is cut at the 65,535 bytes that its length can tell.
    pub(super) fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        let value = value.get(..usize::from(length)).unwrap_or(value);
        self.u16(code).u16(length).padded(value)
    }

    pub(super) fn text(&mut self, code: u16, value: &str) -> &mut Self {
        self.option(code, value.as_bytes())
    }

    pub(super) fn end_of_options(&mut self) -> &mut Self {
        self.u32(0)
    }

    /// Ends the block: its length, once more at the end for readers that go backwards.
    pub(super) fn seal(&mut self) -> &[u8] {
        // A packet is bounded by the snap length and an option by its own length.
        let length = u32::try_from(self.0.len() + 4).unwrap_or(u32::MAX);
        self.u32(length);
        if let Some(field) = self.0.get_mut(Self::LENGTH) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        &self.0
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}
