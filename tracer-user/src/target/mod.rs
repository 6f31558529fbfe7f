//! Who is traced.
