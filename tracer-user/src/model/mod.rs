//! The story: processes, connections, exchanges, goroutines and the links between them.
