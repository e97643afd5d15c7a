use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::collection::vec;
use proptest::prelude::*;

use super::forms::{MAX_FORM_BYTES, forms};
use super::mask::{MASK, Mask, Masker};

fn masked(secrets: &[&str], text: &str) -> String {
    let out = Mask::new(secrets).unwrap().apply(text.as_bytes());
    String::from_utf8(out).unwrap()
}

/// Marks each byte of each occurrence of each form, found by comparing at every place.
pub(super) fn model(secrets: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for form in forms(secrets) {
        let starts = (0..text.len()).filter(|start| text[*start..].starts_with(&form));
        spans.extend(starts.map(|start| (start, start + form.len())));
    }
    spans.sort_unstable();
    let (mut out, mut until) = (Vec::new(), 0);
    for (start, end) in spans {
        if start >= until {
            out.extend_from_slice(&text[until..start]);
            out.extend_from_slice(MASK);
        }
        until = until.max(end);
    }
    out.extend_from_slice(&text[until..]);
    out
}

fn chunks<'a>(text: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().copied().cycle();
    let (mut rest, mut chunks) = (text, Vec::new());
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(lengths.next().unwrap_or(1).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

/// The text with neighbouring masks shown as one.
pub(super) fn squeezed(text: &[u8]) -> String {
    let mut text = String::from_utf8(text.to_vec()).unwrap();
    while text.contains("****") {
        text = text.replace("****", "***");
    }
    text
}

/// Few letters, so that secrets overlap each other and themselves.
fn small_alphabet() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(b"abc\n".to_vec()), 0..7)
}

fn text_with_secrets(secrets: Vec<Vec<u8>>) -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    let pieces: Vec<Vec<u8>> = forms(&secrets).into_iter().chain([vec![]]).collect();
    let piece =
        prop_oneof![vec(prop::sample::select(b"abcYWJj\n".to_vec()), 0..6), prop::sample::select(pieces)];
    (Just(secrets), vec(piece, 0..20).prop_map(|pieces| pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_chunking_masks_what_the_whole_buffer_would(
        (secrets, text) in vec(small_alphabet(), 0..4).prop_flat_map(text_with_secrets),
        lengths in vec(0_usize..9, 1..5).prop_filter("progress", |lengths| lengths.iter().any(|length| *length > 0)),
    ) {
        let mask = Mask::new(&secrets).unwrap();
        let mut masker = Masker::new(mask, 0);
        let mut out = Vec::new();
        let longest = forms(&secrets).iter().map(Vec::len).max().unwrap_or(0) as u64;
        for chunk in chunks(&text, &lengths) {
            let written = masker.push(chunk, &mut out);
            prop_assert!(masker.next() - written <= 2 * longest);
        }
        prop_assert_eq!(masker.flush(&mut out), text.len() as u64);
        prop_assert_eq!(out, model(&secrets, &text));
    }

    /// A daemon that was killed begins again at the last offset that it acknowledged, with a new masker.
    #[test]
    fn a_new_masker_from_any_written_offset_leaks_nothing(
        (secrets, text) in vec(small_alphabet(), 0..4).prop_flat_map(text_with_secrets),
        cut in 0_usize..200,
    ) {
        let mask = Mask::new(&secrets).unwrap();
        let mut out = Vec::new();
        let mut first = Masker::new(mask.clone(), 0);
        let written = first.push(&text[..cut.min(text.len())], &mut out);
        let mut second = Masker::new(mask, written);
        second.push(&text[usize::try_from(written).unwrap()..], &mut out);
        second.flush(&mut out);
        // A run of overlapping secrets may show two masks for one; nothing else may differ.
        prop_assert_eq!(squeezed(&out), squeezed(&model(&secrets, &text)));
    }

}

proptest! {
    #[test]
    fn base64_of_a_text_around_the_secret_hides_all_but_the_shared_bits(
        before in vec(any::<u8>(), 0..9), secret in vec(any::<u8>(), 8..200), after in vec(any::<u8>(), 0..9),
    ) {
        let text = [&before[..], &secret, &after].concat();
        let mask = Mask::new(&[&secret]).unwrap();
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            let out = mask.apply(engine.encode(&text).as_bytes());
            // Whole characters of what stands before and after, one shared character on each side, padding, the mask.
            let visible = (before.len() * 8).div_ceil(6) + (after.len() * 8).div_ceil(6) + 2 + 2 + MASK.len();
            prop_assert!(out.len() <= visible, "{}", String::from_utf8_lossy(&out));
            prop_assert!(out.windows(3).any(|window| window == MASK));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// More forms than the vectorised search takes, so that the grid looks: of all lengths, near and far from each other.
    #[test]
    fn many_secrets_are_masked_like_few(
        short in 3_usize..20,
        seed in any::<u32>(),
        pieces in vec((any::<prop::sample::Index>(), 0_usize..40, 0_usize..40), 0..40),
        lengths in vec(1_usize..300, 1..4),
    ) {
        let secrets: Vec<Vec<u8>> = (0..150_u32)
            .map(|number| {
                let word = format!("{:x}", u64::from(seed.wrapping_mul(number + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                word.bytes().cycle().take(short + number as usize % 17).collect()
            })
            .collect();
        let text: Vec<u8> = pieces
            .iter()
            .flat_map(|(which, cut, filler)| {
                let secret = which.get(&secrets);
                let part = &secret[..secret.len().saturating_sub(cut / 8)];
                [part, &b"0123456789abcdef lorem ipsum dolor sit amet"[..*filler]].concat()
            })
            .collect();
        let mut masker = Masker::new(Mask::new(&secrets).unwrap(), 0);
        let mut out = Vec::new();
        for chunk in chunks(&text, &lengths) {
            masker.push(chunk, &mut out);
        }
        masker.flush(&mut out);
        prop_assert_eq!(out, model(&secrets, &text));
    }
}

/// The least window of a stream is 8 KiB: what is held back is not acknowledged, and must leave room in it.
#[test]
fn a_large_secret_is_hidden_without_holding_back_much() {
    let secret: String =
        (0..9000).map(|index| char::from(b'!' + u8::try_from(index * index % 89).unwrap())).collect();
    let encoded = STANDARD.encode(&secret);
    let text = format!("before {secret} between {encoded} behind {}", &secret[..6000]);
    let mask = Mask::new(&[&secret]).unwrap();
    for length in [1, 100, 4096, text.len()] {
        let (mut masker, mut out) = (Masker::new(mask.clone(), 0), Vec::new());
        for chunk in text.as_bytes().chunks(length) {
            let written = masker.push(chunk, &mut out);
            assert!(masker.next() - written <= 2 * MAX_FORM_BYTES as u64);
        }
        masker.flush(&mut out);
        let out = squeezed(&out);
        assert!(out.starts_with("before *** between ***") && out.contains(" behind ***"), "{out}");
        // Of the part of one that ends the text, what is no whole piece shows.
        assert!(out.len() < 60 + MAX_FORM_BYTES, "{out}");
    }
    assert_eq!(mask.apply(text.as_bytes()), model(&[secret.into_bytes()], text.as_bytes()));
}

/// More forms than the vectorised search takes.
#[test]
fn hundreds_of_secrets_are_masked_alike() {
    let secrets: Vec<_> = (0..300_u32).map(|number| (number * 2_654_435).to_string().into_bytes()).collect();
    let text: Vec<_> = (0..900_u32).map(|number| (number * 2_654_435 / 3).to_string()).collect();
    let text = text.join(" lorem ipsum ").into_bytes();
    let mask = Mask::new(&secrets).unwrap();
    assert_eq!(mask.apply(&text), model(&secrets, &text));
    let mut out = Vec::new();
    let mut masker = Masker::new(mask, 0);
    for byte in &text {
        masker.push(&[*byte], &mut out);
    }
    masker.flush(&mut out);
    assert_eq!(out, model(&secrets, &text));
}

#[test]
fn hides_plain_values_and_keeps_the_rest() {
    assert_eq!(masked(&["hunter2"], "user=me password=hunter2 end"), "user=me password=*** end");
    assert_eq!(masked(&[], "nothing to hide"), "nothing to hide");
    assert_eq!(masked(&["", "ab"], "abc ab"), "abc ab", "shorter than three bytes");
    assert_eq!(Mask::new(&["", "ab", "abc"]).unwrap().ignored(), 2);
}

#[test]
fn overlapping_secrets_leave_no_tail() {
    assert_eq!(masked(&["abcd", "cdef"], "xabcdefx"), "x***x");
    assert_eq!(masked(&["token", "token-long"], "token-long token-lo"), "*** ***-lo");
    assert_eq!(masked(&["aaa"], "aaaaaaa b"), "*** b");
}

#[test]
fn hides_lines_of_keys_also_when_base64_breaks_them() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n}\n-----END KEY-----\n";
    assert_eq!(masked(&[key], "  MIIEvQIBADANBgkq\r\n}"), "  ***\r\n}");
    let long: String = (0..40).map(|index| format!("line {index} of a key\n")).collect();
    let encoded = STANDARD.encode(&long);
    for columns in [64, 76] {
        let lines: Vec<_> =
            encoded.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let out = masked(&[&long], &lines.join("\r\n"));
        assert!(out.lines().all(|line| line == "***" || line.len() < 8), "{out}");
    }
}

#[test]
fn a_value_read_from_a_file_is_hidden_without_its_newline() {
    assert_eq!(masked(&["sesame\n"], "Bearer sesame!"), "Bearer ***!");
    assert_eq!(masked(&["sesame\n"], &STANDARD.encode("sesame")), "***");
}

#[test]
fn holds_back_only_what_may_become_a_secret() {
    let mut masker = Masker::new(Mask::new(&["hunter2"]).unwrap(), 100);
    let mut out = Vec::new();
    assert_eq!(masker.push(b"say hun", &mut out), 104);
    assert_eq!(out, b"say ");
    assert_eq!(masker.push(b"gry", &mut out), 110);
    assert_eq!(out, b"say hungry");
    assert_eq!(masker.push(b"\nhunter2", &mut out), 118, "a whole secret waits for nothing");
    assert_eq!(out, b"say hungry\n***");
    assert_eq!(masker.push(b"hu", &mut out), 118);
    assert_eq!(masker.flush(&mut out), 120);
    assert_eq!(out, b"say hungry\n***hu");
}

#[test]
fn debug_output_shows_no_secret() {
    let mask = Mask::new(&["hunter2"]).unwrap();
    let mut masker = Masker::new(mask.clone(), 0);
    masker.push(b"hunter", &mut Vec::new());
    let shown = format!("{mask:?} {masker:?}");
    assert!(!shown.contains("hunt") && !shown.contains("104"), "{shown}");
}

/// `cargo test --release -- --ignored --nocapture throughput`.
#[test]
#[ignore = "prints figures, asserts nothing about speed"]
fn throughput() {
    let plain =
        "   Compiling serde_json v1.0.154 (/workspace/repo/vendor/serde_json) [optimized + debuginfo]\n";
    let many = |count: u32| (0..count).map(|index| format!("secret-value-{}", index * 7919)).collect();
    let key: String = (0..50).map(|index| format!("{:064}\n", u64::MAX - index)).collect();
    let token = || vec!["ghp_0123456789abcdefghijklmnopqrstuvwxyz".to_owned()];
    for (name, secrets, line) in [
        ("no secret", vec![], plain),
        ("one", token(), plain),
        ("one of four bytes", vec!["seri".to_owned()], plain),
        ("sixty", many(60), plain),
        ("three hundred", many(300), plain),
        ("key of 50 lines", vec![key], plain),
        ("nothing but beginnings", token(), "ghp_0123456789abcdefghijklmnopqrstuvwxy"),
        ("nothing but first bytes", token(), "ghp_"),
        ("nothing but the secret", token(), "ghp_0123456789abcdefghijklmnopqrstuvwxyz"),
        ("a secret that overlaps itself", vec!["a".repeat(1000)], "aaaa"),
    ] {
        let text = line.repeat(64 * 1024 / line.len());
        let mut masker = Masker::new(Mask::new(&secrets).unwrap(), 0);
        let mut out = Vec::new();
        let start = std::time::Instant::now();
        let rounds = 4096;
        for _ in 0..rounds {
            out.clear();
            masker.push(text.as_bytes(), &mut out);
        }
        let bytes = rounds * text.len() as u64;
        println!("{name}: {:.2} GB/s", bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
        assert_eq!(masker.next(), bytes);
    }
}
