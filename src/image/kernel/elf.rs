//! Just enough ELF to answer two questions: can QEMU start this kernel, and does this program need a loader?

const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
/// The note that holds the 32-bit PVH entry point (xen/include/public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// Whether `image` is a 64-bit little-endian ELF file with a PVH entry; else what it lacks.
pub(super) fn check_pvh(image: &[u8]) -> Result<(), &'static str> {
    let segments = segments(image).ok_or("it isn't a 64-bit ELF file")?;
    let mut notes = segments.filter(|segment| segment.kind == PT_NOTE);
    if notes.any(|segment| has_pvh_note(segment.content(image))) {
        Ok(())
    } else {
        Err("it has no PVH entry note")
    }
}

/// Whether `program` is an ELF file that runs without a dynamic loader.
pub(in crate::image) fn is_static_elf(program: &[u8]) -> bool {
    segments(program).is_some_and(|mut segments| segments.all(|segment| segment.kind != PT_INTERP))
}

struct Segment {
    kind: u32,
    offset: usize,
    size: usize,
}

impl Segment {
    /// Empty if the segment does not lie in the file.
    fn content<'a>(&self, image: &'a [u8]) -> &'a [u8] {
        self.offset.checked_add(self.size).and_then(|end| image.get(self.offset..end)).unwrap_or_default()
    }
}

/// The program headers, ELF-64 layout (gabi, "Program Header").
fn segments(image: &[u8]) -> Option<impl Iterator<Item = Segment> + '_> {
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(image, 32)?).ok()?;
    let entry_size = usize::from(u16_at(image, 54)?);
    let count = usize::from(u16_at(image, 56)?);
    Some((0..count).filter_map(move |index| {
        let at = table.checked_add(index.checked_mul(entry_size)?)?;
        Some(Segment {
            kind: u32_at(image, at)?,
            offset: usize::try_from(u64_at(image, at.checked_add(8)?)?).ok()?,
            size: usize::try_from(u64_at(image, at.checked_add(32)?)?).ok()?,
        })
    }))
}

fn has_pvh_note(mut notes: &[u8]) -> bool {
    const HEADER: usize = 12;
    let padded = |length: u32| usize::try_from(length).ok()?.checked_next_multiple_of(4);
    while let (Some(name), Some(desc), Some(kind)) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8)) {
        let (Some(name_room), Some(desc_room)) = (padded(name), padded(desc)) else { return false };
        let is_xen = notes.get(HEADER..HEADER + 4) == Some(b"Xen\0");
        if name == 4 && is_xen && kind == XEN_ELFNOTE_PHYS32_ENTRY {
            return true;
        }
        let next = HEADER.checked_add(name_room).and_then(|at| at.checked_add(desc_room));
        match next.and_then(|at| notes.get(at..)) {
            Some(rest) => notes = rest,
            None => return false,
        }
    }
    false
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}
