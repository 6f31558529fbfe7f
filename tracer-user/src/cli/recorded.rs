//! A recording, read back for a verb.

use std::path::Path;

use crate::{
    detect::Finding,
    event::{Event, Fact, Unseen},
    export::wireshark,
    model::Model,
    recording::Reader,
};

/// A recording and what it tells.
pub(super) struct Recorded {
    pub(super) reader: Reader,
    pub(super) model: Model,
}

impl Recorded {
    /// Reads the recording in `directory`; `told` sees each event after the model has taken it.
    ///
    /// # Errors
    /// Where it cannot be read, or is none.
    pub(super) fn read(
        directory: &Path,
        mut told: impl FnMut(&Event, &Model),
    ) -> anyhow::Result<Self> {
        let mut reader = Reader::open(directory)?;
        let mut model = Model::new(reader.source().clone());
        let mut last = reader.source().started;
        for event in &mut reader {
            last = last.max(event.at);
            model.apply(&event);
            told(&event, &model);
        }
        for unseen in reader.unseen() {
            model.apply(&Event {
                at: last,
                fact: Fact::Unseen(unseen),
            });
        }
        model.end(reader.ended());
        Ok(Self { reader, model })
    }

    /// Numbers the packets that prove `findings`. A recording whose capture is gone or damaged is
    /// diagnosed all the same, and says so.
    pub(super) fn number_frames(&mut self, findings: &mut [Finding]) {
        let numbered = self
            .reader
            .capture()
            .map_err(anyhow::Error::from)
            .and_then(|capture| Ok(wireshark::find_frames(capture, &self.model, findings)?));
        if let Err(error) = numbered {
            self.model.apply(&Event {
                at: self.model.now(),
                fact: Fact::Unseen(Unseen {
                    what: "the packets of the recording".to_owned(),
                    why: format!("{error:#}"),
                    remedy: "copy the recording once more from where it was made".to_owned(),
                }),
            });
        }
    }
}
