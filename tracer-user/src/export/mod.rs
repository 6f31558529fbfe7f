//! What was recorded, in the forms of other tools. One folder a tool.
//!
//! In: what a recording holds, with the model and the findings that were made of it. Out: a file of the
//! other tool. Nothing is judged here.

pub mod wireshark;
