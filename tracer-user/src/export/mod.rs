//! What was recorded, in the forms of other tools. One folder, or one file, a tool.
//!
//! In: what a recording holds, with the model and the findings that were made of it. Out: a file of the
//! other tool. Nothing is judged here.

pub mod folded;
pub mod perfetto;
pub mod pprof;
mod samples;
#[cfg(test)]
mod tests;
pub mod wireshark;

pub use samples::Samples;
