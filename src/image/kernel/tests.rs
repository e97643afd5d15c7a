use proptest::prelude::*;

use super::*;

/// A bzImage whose payload is `payload`, with one setup sector.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    let length = u32::try_from(payload.len()).expect("small");
    image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
    image.extend_from_slice(payload);
    image
}

/// The least ELF file with a PVH note.
fn elf_with_note(note_type: u32) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01".to_vec();
    elf.resize(64 + 56, 0);
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[54..56].copy_from_slice(&56u16.to_le_bytes());
    elf[56..58].copy_from_slice(&1u16.to_le_bytes());
    elf[64..68].copy_from_slice(&4u32.to_le_bytes());
    elf[72..80].copy_from_slice(&120u64.to_le_bytes());
    elf[96..104].copy_from_slice(&40u64.to_le_bytes());
    // A foreign note first, then ours.
    for (name, kind) in [(b"GNU\0", 3u32), (b"Xen\0", note_type)] {
        elf.extend_from_slice(&4u32.to_le_bytes());
        elf.extend_from_slice(&4u32.to_le_bytes());
        elf.extend_from_slice(&kind.to_le_bytes());
        elf.extend_from_slice(name);
        elf.extend_from_slice(&[1, 2, 3, 4]);
    }
    elf
}

/// As the kernel's build packs it: magic, blocks with their lengths, the unpacked size.
fn lz4_legacy(content: &[u8], block: usize) -> Vec<u8> {
    let mut packed = LZ4_LEGACY_MAGIC.to_vec();
    for part in content.chunks(block) {
        let compressed = lz4_flex::block::compress(part);
        packed.extend_from_slice(&u32::try_from(compressed.len()).expect("small").to_le_bytes());
        packed.extend_from_slice(&compressed);
    }
    packed.extend_from_slice(&u32::try_from(content.len()).expect("small").to_le_bytes());
    packed
}

#[test]
fn an_lz4_payload_comes_out_as_the_elf_it_was() {
    let elf = elf_with_note(18);
    assert_eq!(vmlinux_from_bzimage(&bzimage(&lz4_legacy(&elf, 50))), Ok(elf));
}

#[test]
fn a_kernel_without_a_pvh_entry_is_refused() {
    let error =
        vmlinux_from_bzimage(&bzimage(&lz4_legacy(&elf_with_note(17), 1 << 20))).expect_err("no entry");
    assert_eq!(error, KernelError::NoEntry("it has no PVH entry note"));
}

#[test]
fn other_compressions_are_named() {
    let error = vmlinux_from_bzimage(&bzimage(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0])).expect_err("zstd");
    assert_eq!(error, KernelError::Compression("zstd"));
}

#[test]
fn a_false_size_is_damage_not_an_allocation() {
    let mut packed = lz4_legacy(&elf_with_note(18), 1 << 20);
    let end = packed.len() - 4;
    packed[end..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(vmlinux_from_bzimage(&bzimage(&packed)), Err(KernelError::Damaged(_))));
    packed[end..].copy_from_slice(&7u32.to_le_bytes());
    assert!(matches!(vmlinux_from_bzimage(&bzimage(&packed)), Err(KernelError::Damaged(_))));
}

#[test]
fn a_static_program_is_told_from_a_dynamic_one() {
    let mut elf = elf_with_note(18);
    assert!(is_static_elf(&elf));
    elf[64..68].copy_from_slice(&3u32.to_le_bytes());
    assert!(!is_static_elf(&elf));
    assert!(!is_static_elf(b"#!/bin/sh"));
}

#[test]
fn the_installed_kernel_unpacks() {
    let installed = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let images: Vec<_> = installed
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("vmlinuz-"))
        .collect();
    if images.is_empty() {
        eprintln!("skipped: no kernel is installed in /boot");
    }
    for path in images {
        let image = match std::fs::read(&path) {
            Ok(image) => image,
            Err(error) => {
                eprintln!("skipped: {} can't be read: {error}", path.display());
                continue;
            }
        };
        match vmlinux_from_bzimage(&image) {
            Ok(vmlinux) => assert!(vmlinux.len() > image.len(), "{} shrank", path.display()),
            Err(KernelError::Compression(with)) => {
                eprintln!("skipped: {} is packed by {with}", path.display())
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(
        mut image in proptest::collection::vec(any::<u8>(), 0..2048),
        sane in any::<bool>(),
    ) {
        if sane && image.len() > 0x250 {
            image[0x202..0x206].copy_from_slice(b"HdrS");
            image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        }
        let _ = vmlinux_from_bzimage(&image);
        let _ = is_static_elf(&image);
    }

    #[test]
    fn a_damaged_payload_never_panics(at in 0usize..300, with in any::<u8>()) {
        let mut packed = lz4_legacy(&elf_with_note(18), 40);
        let at = at % packed.len();
        packed[at] = with;
        let _ = vmlinux_from_bzimage(&bzimage(&packed));
    }

    #[test]
    fn a_damaged_elf_never_panics(at in 0usize..200, with in any::<u8>()) {
        let mut elf = elf_with_note(18);
        let at = at % elf.len();
        elf[at] = with;
        let _ = elf::check_pvh(&elf);
        let _ = is_static_elf(&elf);
    }
}
