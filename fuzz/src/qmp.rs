//! Lines from QEMU, in which a guest may have taken over: the same messages however they are cut, and no text that could
//! drive a terminal.

use creel::runtime::microvm::qemu::qmp::{Incoming, LineBuffer};

use super::input::{Input, chunks};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let lengths = [usize::from(input.byte()), usize::from(input.byte())];
    let whole = parsed(&[input.0]);
    for incoming in &whole.0 {
        if let Incoming::Error { class, description, .. } = incoming {
            let text = format!("{class}{description}");
            assert!(!text.contains(char::is_control) && text.chars().count() <= 512);
        }
    }
    assert_eq!(parsed(&chunks(input.0, &lengths)), whole, "cut otherwise");
}

/// What was said, and whether it ended well.
fn parsed(chunks: &[&[u8]]) -> (Vec<Incoming>, bool) {
    let (mut lines, mut said) = (LineBuffer::default(), Vec::new());
    for chunk in chunks {
        lines.space().extend_from_slice(chunk);
        loop {
            match lines.next_message() {
                Ok(Some(incoming)) => said.push(incoming),
                Ok(None) => break,
                Err(_) => return (said, false),
            }
        }
    }
    (said, true)
}
