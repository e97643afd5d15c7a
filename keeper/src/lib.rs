//! The keeper: the small parent of one machine’s processes.
