//! What this kernel offers, and how each thing we want to know will be learnt on it.
