//! Live scenarios and what they need.
