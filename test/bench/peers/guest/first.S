# The smallest guest: its first instructions pull the reset line (keyboard controller, command 0xFE), at which both VMMs end.
# An ELF with a PVH entry, which is 32-bit code with paging off.
        .section .note.pvh, "a", @note
        .align  4
        .long   4, 4, 18                # lengths of name and value; XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   start

        .text
        .code32
        .globl  start
start:
        mov     $0xfe, %al
        out     %al, $0x64
1:      hlt
        jmp     1b
