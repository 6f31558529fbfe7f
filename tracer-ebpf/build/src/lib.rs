//! How the kernel half becomes an object, and which object belongs to which source.
//!
//! `cargo xtask build-ebpf` and the build script of `tracer-user` both stand on this crate, so the
//! object kept in `tracer-ebpf/prebuilt/` and the one built on the way are made by the same recipe
//! and judged by the same hash.
//!
//! What always holds: an object is never used for a source it was not built from. [`source_hash`]
//! covers everything that decides the object's bytes except the compiler itself, and
//! [`Prebuilt::object_for`] gives no object whose recorded hash differs.

#![forbid(unsafe_code)]

mod compile;
mod prebuilt;
mod source;
mod toolchain;

pub use compile::compile;
pub use prebuilt::Prebuilt;
pub use source::{source_hash, watched_paths};
pub use toolchain::{Missing, Toolchain};
