//! Arguments to verb, errors to exit status.

fn main() {}
