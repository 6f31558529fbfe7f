//! Findings told to a person or a tool.
