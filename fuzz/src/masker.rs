//! The masker against one that compares at every place: whatever the secrets, the text and its chunks, and with a new masker
//! that goes on where the first is killed.

use creel::state::log::{MASK, Mask, Masker, forms};

use super::input::{Input, chunks};

/// So that the naive one is done in time.
const MAX_TEXT_BYTES: usize = 1024;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let secrets: Vec<&[u8]> = (0..input.byte() % 8)
        .map(|_| {
            let length = usize::from(input.byte());
            input.bytes(length)
        })
        .collect();
    // Some hundred forms more make the filter another one.
    let many = (0..100_u32).map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b1)).into_bytes());
    let many: Vec<_> = many.filter(|_| input.byte() % 2 == 1).collect();
    let secrets: Vec<&[u8]> = secrets.into_iter().chain(many.iter().map(Vec::as_slice)).collect();
    let lengths = [usize::from(input.byte()), usize::from(input.u16())];
    let cut = usize::from(input.u16());
    let text = text(&secrets, input);

    let Ok(mask) = Mask::new(&secrets) else { return };
    let expected = naive(&secrets, &text);
    let mut masker = Masker::new(mask.clone(), 0);
    let mut out = Vec::new();
    for chunk in chunks(&text, &lengths) {
        masker.push(chunk, &mut out);
    }
    assert_eq!(masker.flush(&mut out), text.len() as u64);
    assert!(out == expected, "chunks of {lengths:?}");
    assert!(out.len() <= text.len(), "masked output is no longer");

    let (before, mut resumed) = (&text[..cut.min(text.len())], Vec::new());
    let written = Masker::new(mask.clone(), 0).push(before, &mut resumed);
    let mut second = Masker::new(mask, written);
    second.push(&text[usize::try_from(written).unwrap_or(usize::MAX)..], &mut resumed);
    second.flush(&mut resumed);
    assert!(squeezed(&resumed) == squeezed(&expected), "resumed at {written}");
}

/// The rest of the input, in which byte 0xff stands for a whole secret's form, and 0xfe for the beginning of one.
fn text(secrets: &[&[u8]], mut input: Input<'_>) -> Vec<u8> {
    let forms: Vec<Vec<u8>> = forms(secrets).into_iter().collect();
    let mut text = Vec::new();
    while !input.0.is_empty() && text.len() < MAX_TEXT_BYTES {
        match input.byte() {
            mark @ 0xfe.. if !forms.is_empty() => {
                let form = &forms[usize::from(input.u16()) % forms.len()];
                let end = if mark == 0xff { form.len() } else { usize::from(input.byte()).min(form.len()) };
                text.extend_from_slice(&form[..end]);
            }
            byte => text.push(byte),
        }
    }
    text
}

fn naive(secrets: &[&[u8]], text: &[u8]) -> Vec<u8> {
    let mut hidden = vec![0_usize; text.len()];
    for form in forms(secrets) {
        for start in (0..text.len()).filter(|start| text[*start..].starts_with(&form)) {
            hidden[start] = hidden[start].max(form.len());
        }
    }
    let (mut out, mut until) = (Vec::new(), 0);
    for (at, byte) in text.iter().enumerate() {
        if hidden[at] > 0 && at >= until {
            out.extend_from_slice(MASK);
        }
        until = until.max(at + hidden[at]);
        if at >= until {
            out.push(*byte);
        }
    }
    out
}

/// With neighbouring masks shown as one: a run of overlapping secrets that was cut may show two for one.
fn squeezed(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for byte in text {
        if *byte != b'*' || !out.ends_with(MASK) {
            out.push(*byte);
        }
    }
    out
}
