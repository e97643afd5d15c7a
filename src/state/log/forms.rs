//! The byte strings under which a secret may show up in output.
//!
//! A secret is hidden as it is and in base64, since `Authorization: Basic` and Kubernetes manifests are the ways by
//! which secrets reach logs in practice. Hex, URL escapes and compression are not covered: nothing that the step
//! itself computes can be, so masking guards against accidents, not against the workflow's author.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Shorter secrets are not masked: they occur everywhere by chance, and the stars would tell them to any reader. It is
/// also the length of [`MASK`](super::MASK), so masked output is never longer than what came in.
pub const MIN_SECRET_BYTES: usize = 3;

/// Lines of a multi-line secret are masked one by one from this length on; `}` or `"a",` alone would hide half a log.
const MIN_LINE_BYTES: usize = 4;

/// A piece cut out of base64 text is masked from this length on (6 bytes of secret), for the same reason.
const MIN_CORE_CHARS: usize = 8;

/// Longer forms are hidden piece by piece. What may become a form is held back, at most twice its length, and not
/// acknowledged meanwhile; that has to stay well below the least window of a stream (8 KiB), or a step that prints the
/// beginning of a large secret would wait for credit for ever.
pub const MAX_FORM_BYTES: usize = 2 << 10;

/// The columns at which `base64(1)` and PEM writers break lines.
const WRAP_COLUMNS: [usize; 2] = [76, 64];

/// Every byte string to be masked for `secrets`, without duplicates; none is longer than [`MAX_FORM_BYTES`].
pub fn forms<S: AsRef<[u8]>>(secrets: &[S]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    for secret in secrets {
        let secret = secret.as_ref();
        add_value(secret, &mut forms);
        // A secret read from a file ends in a newline which the step's `$(...)` drops.
        let trimmed = trim_line_end(secret);
        if trimmed.len() < secret.len() {
            add_value(trimmed, &mut forms);
        }
        let lines = secret.split(|byte| *byte == b'\n').map(trim_line_end);
        forms.extend(lines.filter(|line| line.len() >= MIN_LINE_BYTES).map(<[u8]>::to_vec));
    }
    forms.iter().flat_map(|form| pieces(form)).collect()
}

/// The form, or pieces of [`MAX_FORM_BYTES`] that cover it; the last two overlap rather than that the last is short.
fn pieces(form: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let length = form.len().min(MAX_FORM_BYTES);
    let starts = (0..form.len()).step_by(length.max(1));
    starts.map(move |start| {
        let start = start.min(form.len() - length);
        form[start..start + length].to_vec()
    })
}

fn add_value(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    if value.len() < MIN_SECRET_BYTES {
        return;
    }
    forms.insert(value.to_vec());
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        forms.insert(engine.encode(value).into_bytes());
    }
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for alignment in 0..3 {
            let core =
                base64_core(engine.encode([&[0; 3][..alignment], value].concat()), alignment, value.len());
            if core.len() < MIN_CORE_CHARS {
                continue;
            }
            if alignment == 0 {
                let wrapped = WRAP_COLUMNS.iter().filter(|columns| core.len() > **columns);
                let lines = wrapped.flat_map(|columns| core.chunks(*columns));
                forms.extend(lines.filter(|line| line.len() >= MIN_CORE_CHARS).map(<[u8]>::to_vec));
            }
            forms.insert(core);
        }
    }
}

/// What of `encoded` depends on the secret alone when `alignment` (0 to 2) unknown bytes stand before it: a character
/// holds 6 bits, so those that share bits with a neighbour are left out. At most 4 bits of the secret stay readable at
/// either end; taking in the shared characters would need up to 64 variants of every form.
fn base64_core(encoded: String, alignment: usize, secret_bytes: usize) -> Vec<u8> {
    let first = (alignment * 8).div_ceil(6);
    let end = (alignment + secret_bytes) * 8 / 6;
    encoded.into_bytes()[first..end].to_vec()
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let kept = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &line[..kept]
}
