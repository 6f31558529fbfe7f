//! The wire: what the two halves agree on.
#![no_std]
