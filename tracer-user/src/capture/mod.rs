//! The live source: load, attach, drain, account for losses.
