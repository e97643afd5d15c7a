//! The trial program: what every boot needs of a CPU, in 456 bytes.
//!
//! It enters long mode, maps pages, writes and reads memory, reloads CR3, computes, leaves for CPUID, takes a timer
//! interrupt, and ends QEMU through `isa-debug-exit` with a status that nothing else produces. A KVM that emulates
//! instruction by instruction does the arithmetic at a thousandth of the speed (1.4 us an instruction, measured), one
//! that injects no interrupts waits for ever, and one that can't page crashes.
//!
//! QEMU loads it like a PVH kernel, through the same firmware as a real one: an ELF file with Xen's entry note. The
//! program is kept as bytes, since assembly in this crate would need a native assembler's symbols and `unsafe` to read
//! them; the comments are the source (AT&T syntax), assembled for the address 0x100000.

/// Changes with the program: an outcome holds for one program only.
pub(super) const VERSION: u32 = 1;

/// Where `isa-debug-exit` listens. QEMU exits with `2 * value + 1`.
pub(super) const EXIT_PORT: u16 = 0xf4;
pub(super) const STATUS_DONE: i32 = 2 * 0x15 + 1;
pub(super) const STATUS_BAD_MEMORY: i32 = 2 * 0x21 + 1;
pub(super) const STATUS_BAD_ARITHMETIC: i32 = 2 * 0x22 + 1;

/// Load and entry address.
const ADDRESS: u32 = 0x10_0000;

#[rustfmt::skip]
const CODE: [u8; 456] = [
    // 32-bit protected mode without paging, as PVH enters (Xen: docs/misc/pvh.pandoc). Tables from 0x110000 on,
    // zeroed first: PML4, PDPT, two page directories, four page tables, and the IDT at 0x118000.
    0xfa,                                                         // _start: cli
    0xfc,                                                         // cld
    0xbf, 0x00, 0x00, 0x11, 0x00,                                 // mov $0x110000, %edi
    0x31, 0xc0,                                                   // xor %eax, %eax
    0xb9, 0x00, 0x28, 0x00, 0x00,                                 // mov $0x2800, %ecx
    0xf3, 0xab,                                                   // rep stosl

    // The first 8 MiB by 4 KiB pages, and the local APIC by an uncached 2 MiB page.
    0xc7, 0x05, 0x00, 0x00, 0x11, 0x00, 0x03, 0x10, 0x11, 0x00,   // movl $0x111003, 0x110000
    0xc7, 0x05, 0x00, 0x10, 0x11, 0x00, 0x03, 0x20, 0x11, 0x00,   // movl $0x112003, 0x111000
    0xc7, 0x05, 0x18, 0x10, 0x11, 0x00, 0x03, 0x30, 0x11, 0x00,   // movl $0x113003, 0x111018
    0xc7, 0x05, 0xb8, 0x3f, 0x11, 0x00, 0x9b, 0x00, 0xe0, 0xfe,   // movl $0xfee0009b, 0x113fb8
    0xc7, 0x05, 0x00, 0x20, 0x11, 0x00, 0x03, 0x40, 0x11, 0x00,   // movl $0x114003, 0x112000
    0xc7, 0x05, 0x08, 0x20, 0x11, 0x00, 0x03, 0x50, 0x11, 0x00,   // movl $0x115003, 0x112008
    0xc7, 0x05, 0x10, 0x20, 0x11, 0x00, 0x03, 0x60, 0x11, 0x00,   // movl $0x116003, 0x112010
    0xc7, 0x05, 0x18, 0x20, 0x11, 0x00, 0x03, 0x70, 0x11, 0x00,   // movl $0x117003, 0x112018
    0xbf, 0x00, 0x40, 0x11, 0x00,                                 // mov $0x114000, %edi
    0xb8, 0x03, 0x00, 0x00, 0x00,                                 // mov $0x3, %eax
    0xb9, 0x00, 0x08, 0x00, 0x00,                                 // mov $2048, %ecx
    0x89, 0x07,                                                   // 1: mov %eax, (%edi)
    0x83, 0xc7, 0x08,                                             // add $8, %edi
    0x05, 0x00, 0x10, 0x00, 0x00,                                 // add $0x1000, %eax
    0xe2, 0xf4,                                                   // loop 1b

    // PAE, CR3, EFER.LME, paging: long mode.
    0x0f, 0x20, 0xe0,                                             // mov %cr4, %eax
    0x83, 0xc8, 0x20,                                             // or $0x20, %eax
    0x0f, 0x22, 0xe0,                                             // mov %eax, %cr4
    0xb8, 0x00, 0x00, 0x11, 0x00,                                 // mov $0x110000, %eax
    0x0f, 0x22, 0xd8,                                             // mov %eax, %cr3
    0xb9, 0x80, 0x00, 0x00, 0xc0,                                 // mov $0xc0000080, %ecx
    0x0f, 0x32,                                                   // rdmsr
    0x0d, 0x00, 0x01, 0x00, 0x00,                                 // or $0x100, %eax
    0x0f, 0x30,                                                   // wrmsr
    0x0f, 0x20, 0xc0,                                             // mov %cr0, %eax
    0x0d, 0x01, 0x00, 0x00, 0x80,                                 // or $0x80000001, %eax
    0x0f, 0x22, 0xc0,                                             // mov %eax, %cr0
    0x0f, 0x01, 0x15, 0xb8, 0x01, 0x10, 0x00,                     // lgdt gdtr
    0xea, 0xb3, 0x00, 0x10, 0x00, 0x08, 0x00,                     // ljmp $8, $long

    // 64-bit from here. Memory: write to each page of 2 to 7 MiB ...
    0x31, 0xc0,                                                   // long: xor %eax, %eax
    0x8e, 0xd0,                                                   // mov %eax, %ss
    0xbc, 0x00, 0x00, 0x11, 0x00,                                 // mov $0x110000, %esp
    0xbf, 0x00, 0x00, 0x20, 0x00,                                 // mov $0x200000, %edi
    0x48, 0x89, 0x3f,                                             // 2: mov %rdi, (%rdi)
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,                           // add $0x1000, %edi
    0x81, 0xff, 0x00, 0x00, 0x70, 0x00,                           // cmp $0x700000, %edi
    0x72, 0xef,                                                   // jb 2b

    // ... and read it back, reloading CR3 every 64 KiB.
    0xbf, 0x00, 0x00, 0x20, 0x00,                                 // mov $0x200000, %edi
    0x48, 0x39, 0x3f,                                             // 3: cmp %rdi, (%rdi)
    0xb8, 0x21, 0x00, 0x00, 0x00,                                 // mov $0x21, %eax
    0x0f, 0x85, 0xac, 0x00, 0x00, 0x00,                           // jne out
    0xf7, 0xc7, 0xff, 0xff, 0x00, 0x00,                           // test $0xffff, %edi
    0x75, 0x06,                                                   // jnz 4f
    0x0f, 0x20, 0xd8,                                             // mov %cr3, %rax
    0x0f, 0x22, 0xd8,                                             // mov %rax, %cr3
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,                           // 4: add $0x1000, %edi
    0x81, 0xff, 0x00, 0x00, 0x70, 0x00,                           // cmp $0x700000, %edi
    0x72, 0xd6,                                                   // jb 3b

    // Arithmetic: four million rounds of a congruential generator.
    0xb8, 0x01, 0x00, 0x00, 0x00,                                 // mov $1, %eax
    0xb9, 0x00, 0x00, 0x40, 0x00,                                 // mov $0x400000, %ecx
    0x69, 0xc0, 0x0d, 0x66, 0x19, 0x00,                           // 5: imul $1664525, %eax, %eax
    0x05, 0x5f, 0xf3, 0x6e, 0x3c,                                 // add $1013904223, %eax
    0xff, 0xc9,                                                   // dec %ecx
    0x75, 0xf1,                                                   // jnz 5b
    0x3d, 0x01, 0x00, 0x40, 0x1a,                                 // cmp $0x1a400001, %eax
    0xb8, 0x22, 0x00, 0x00, 0x00,                                 // mov $0x22, %eax
    0x75, 0x6b,                                                   // jne out

    // Exits: CPUID always leaves the guest.
    0xbe, 0xc8, 0x00, 0x00, 0x00,                                 // mov $200, %esi
    0x31, 0xc0,                                                   // 6: xor %eax, %eax
    0x0f, 0xa2,                                                   // cpuid
    0xff, 0xce,                                                   // dec %esi
    0x75, 0xf8,                                                   // jnz 6b

    // Interrupts: one shot of the local APIC's timer, vector 0x20. Waiting is by `pause`, not `hlt`: a guest that
    // halts for ever would use no CPU time, which is what limits an orphan.
    0xbf, 0x00, 0x82, 0x11, 0x00,                                 // mov $0x118200, %edi
    0xb8, 0x98, 0x01, 0x10, 0x00,                                 // mov $handler, %eax
    0x66, 0x89, 0x07,                                             // mov %ax, (%rdi)
    0xc7, 0x47, 0x02, 0x08, 0x00, 0x00, 0x8e,                     // movl $0x8e000008, 2(%rdi)
    0xc1, 0xe8, 0x10,                                             // shr $16, %eax
    0x66, 0x89, 0x47, 0x06,                                       // mov %ax, 6(%rdi)
    0x0f, 0x01, 0x1c, 0x25, 0xbe, 0x01, 0x10, 0x00,               // lidt idtr
    0xbb, 0x00, 0x00, 0xe0, 0xfe,                                 // mov $0xfee00000, %ebx
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00,   // movl $0x1ff, 0xf0(%rbx)
    0xc7, 0x83, 0xe0, 0x03, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00,   // movl $0xb, 0x3e0(%rbx)
    0xc7, 0x83, 0x20, 0x03, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00,   // movl $0x20, 0x320(%rbx)
    0xc7, 0x83, 0x80, 0x03, 0x00, 0x00, 0x40, 0x42, 0x0f, 0x00,   // movl $1000000, 0x380(%rbx)
    0x31, 0xed,                                                   // xor %ebp, %ebp
    0xfb,                                                         // sti
    0xf3, 0x90,                                                   // 7: pause
    0x85, 0xed,                                                   // test %ebp, %ebp
    0x74, 0xfa,                                                   // jz 7b

    // Done.
    0xb8, 0x15, 0x00, 0x00, 0x00,                                 // mov $0x15, %eax
    0x66, 0xba, 0xf4, 0x00,                                       // out: mov $0xf4, %dx
    0xee,                                                         // out %al, (%dx)
    0xeb, 0xfe,                                                   // 8: jmp 8b

    // The interrupt handler: count, end of interrupt.
    0xff, 0xc5,                                                   // handler: inc %ebp
    0xc7, 0x83, 0xb0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,   // movl $0, 0xb0(%rbx)
    0x48, 0xcf,                                                   // iretq
    0x66, 0x90,                                                   // .balign 8

    // GDT (null, 64-bit code), its descriptor, the IDT's.
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00,               // gdt: .quad 0, 0x00af9b000000ffff

    // GDT (null, 64-bit code), its descriptor, the IDT's.
    0x0f, 0x00,                                                   // gdtr: .word 15
    0xa8, 0x01, 0x10, 0x00,                                       // .long gdt
    0x0f, 0x02,                                                   // idtr: .word 0x20f
    0x00, 0x80, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00,               // .quad 0x118000
];

/// The program as an ELF file for `-kernel`.
pub(super) fn elf() -> Vec<u8> {
    const HEADER: u32 = 52;
    const PROGRAM_HEADER: u32 = 32;
    const NOTE: u32 = 20;
    const CODE_BYTES: u32 = 456;
    const NOTE_AT: u32 = HEADER + 2 * PROGRAM_HEADER;
    const CODE_AT: u32 = NOTE_AT + NOTE;

    let mut file = Vec::with_capacity((CODE_AT + CODE_BYTES) as usize);
    // e_ident: 32-bit, little-endian, version 1. e_type: executable, e_machine: 386.
    file.extend_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0");
    // e_version, e_entry, e_phoff, e_shoff, e_flags.
    words(&mut file, &[1, ADDRESS, HEADER, 0, 0]);
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    words(&mut file, &[HEADER | PROGRAM_HEADER << 16, 2, 0]);
    // p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_flags, p_align: PT_NOTE, PT_LOAD.
    words(&mut file, &[4, NOTE_AT, 0, 0, NOTE, NOTE, 4, 4]);
    words(&mut file, &[1, CODE_AT, ADDRESS, ADDRESS, CODE_BYTES, CODE_BYTES, 7, 4]);
    // n_namesz, n_descsz, n_type: XEN_ELFNOTE_PHYS32_ENTRY.
    words(&mut file, &[4, 4, 18, u32::from_le_bytes(*b"Xen\0"), ADDRESS]);
    file.extend_from_slice(&CODE);
    file
}

fn words(file: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes()));
}
