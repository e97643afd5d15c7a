//! Takes the ELF kernel out of a bzImage.
//!
//! A bzImage unpacks and relocates itself, which costs an emulated guest half a second of two. That is spared by
//! handing QEMU the ELF file inside, which it starts at its PVH entry (Documentation/arch/x86/boot.rst, "The real-mode
//! kernel header"; Xen's `docs/misc/pvh.pandoc`). Nothing here trusts a length found in the file.

mod elf;
#[cfg(test)]
mod tests;

pub(super) use elf::is_static_elf;

/// Linux writes LZ4's legacy format in blocks that unpack to at most this (`lib/decompress_unlz4.c`).
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// A distribution's kernel unpacks to 40-80 MiB.
const MAX_KERNEL: usize = 512 << 20;

/// Why a kernel stays a bzImage, or can't be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    #[error("not a bzImage: {0}")]
    NotBzImage(&'static str),
    #[error("the bzImage's payload is compressed with {0}, which creel does not unpack")]
    Compression(&'static str),
    #[error("the bzImage's payload is damaged: {0}")]
    Damaged(&'static str),
    #[error("the kernel inside the bzImage can't be started by QEMU: {0}")]
    NoEntry(&'static str),
}

/// Unpacks the ELF kernel and checks that QEMU can start it (PVH).
pub fn vmlinux_from_bzimage(image: &[u8]) -> Result<Vec<u8>, KernelError> {
    let vmlinux = unpack(payload(image)?)?;
    elf::check_pvh(&vmlinux).map_err(KernelError::NoEntry)?;
    Ok(vmlinux)
}

/// The compressed kernel inside a bzImage, found by its setup header.
fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    const SETUP_SECTS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const VERSION: usize = 0x206;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    /// The first protocol version with the two payload fields.
    const WITH_PAYLOAD: u16 = 0x0208;

    let not = KernelError::NotBzImage;
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(not("the setup header's magic `HdrS` is missing"));
    }
    let version = image.get(VERSION..VERSION + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if version.is_none_or(|version| version < WITH_PAYLOAD) {
        return Err(not("its boot protocol is older than 2.08"));
    }
    // Zero stands for four, for old boot loaders' sake.
    let sectors = match image[SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let read = |at| read_u32(image, at).ok_or(not("the setup header is cut off"));
    let offset = read(PAYLOAD_OFFSET)?;
    let length = read(PAYLOAD_LENGTH)?;
    let start = (sectors + 1) * 512 + offset;
    let end = start.checked_add(length).ok_or(KernelError::Damaged("its length overflows"))?;
    image.get(start..end).ok_or(KernelError::Damaged("it reaches beyond the end of the file"))
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    const OTHERS: [(&[u8], &str); 7] = [
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x1f, 0x8b], "gzip"),
        (&[0x5d, 0x00, 0x00], "lzma"),
        (b"BZh", "bzip2"),
        (&[0x89, b'L', b'Z', b'O'], "lzo"),
        (&[0x04, 0x22, 0x4d, 0x18], "framed lz4"),
    ];
    if payload.starts_with(b"\x7fELF") {
        return Ok(payload.to_vec());
    }
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| payload.starts_with(magic)) {
        return Err(KernelError::Compression(name));
    }
    match payload.strip_prefix(&LZ4_LEGACY_MAGIC) {
        Some(blocks) => unpack_lz4(blocks),
        None => Err(KernelError::Compression("something unknown")),
    }
}

/// The kernel's build appends the unpacked size to the blocks, in four bytes.
fn unpack_lz4(blocks: &[u8]) -> Result<Vec<u8>, KernelError> {
    let damaged = KernelError::Damaged;
    let end = blocks.len().checked_sub(4).ok_or(damaged("it is empty"))?;
    let size = read_u32(blocks, end).ok_or(damaged("its size is missing"))?;
    if size > MAX_KERNEL {
        return Err(damaged("it claims to unpack to more than 512 MiB"));
    }
    let mut rest = &blocks[..end];
    let mut unpacked = Vec::new();
    let mut buffer = vec![0; LZ4_BLOCK.min(size)];
    while !rest.is_empty() {
        let length = read_u32(rest, 0).ok_or(damaged("a block's length is cut off"))?;
        let block =
            length.checked_add(4).and_then(|to| rest.get(4..to)).ok_or(damaged("a block is cut off"))?;
        let room = buffer.len().min(size - unpacked.len());
        let written = lz4_flex::block::decompress_into(block, &mut buffer[..room])
            .map_err(|_| damaged("a block does not unpack"))?;
        unpacked.extend_from_slice(&buffer[..written]);
        rest = &rest[4 + length..];
    }
    if unpacked.len() == size {
        Ok(unpacked)
    } else {
        Err(damaged("it unpacks to another size than it claims"))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes([four[0], four[1], four[2], four[3]])).ok()
}
