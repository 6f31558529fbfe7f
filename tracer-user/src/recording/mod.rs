//! A capture kept on disk, and read back as a source of events.
