//! Go programs from outside: what they are, what their goroutines do.
