//! Layers of the jail that a test build leaves out, one at a time, so that it can be shown what misses each.
//!
//! An ordinary build has none of this: the feature `leave-out` is for `tests/microvm/jail/left_out.rs` alone. Namespaces are
//! creel's to make, and so to leave out: `creel::host::Namespaces::flags`.

#[cfg(all(feature = "leave-out", not(debug_assertions)))]
compile_error!("the feature `leave-out` is for tests, and for no build that is delivered");

/// Whether the layer is left out.
#[cfg(not(feature = "leave-out"))]
pub(crate) const fn is_left_out(_layer: &str) -> bool {
    false
}

/// Whether the file `leave-out` beside this program names the layer. Read once, while the host's files are there.
#[cfg(feature = "leave-out")]
pub(crate) fn is_left_out(layer: &str) -> bool {
    use std::sync::OnceLock;
    static NAMED: OnceLock<String> = OnceLock::new();
    let named = NAMED.get_or_init(|| {
        let beside =
            std::fs::read_link("/proc/self/exe").ok().map(|program| program.with_file_name("leave-out"));
        beside.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
    });
    named.trim() == layer
}
