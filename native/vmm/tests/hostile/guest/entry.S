/* Entry in 32-bit protected mode without paging (PVH), and the 256 ways into trap(). */
.section .note.pvh, "a", @note
.long 4, 4, 18
.asciz "Xen"
.long entry

.text
.globl entry
entry:
    mov $stack_end, %esp
    push %ebx
    call guest
1:  cli
    hlt
    jmp 1b

/* 16 bytes each; where the processor pushes no error code, a zero stands for it. */
.globl traps
.balign 16
traps:
.set vector, 0
.rept 256
    .balign 16
    .if (vector != 8) & ((vector < 10) | (vector > 14)) & (vector != 17) & (vector != 21)
    push $0
    .endif
    .byte 0x68
    .long vector
    jmp trapped
    .set vector, vector + 1
.endr

trapped:
    pusha
    push %esp
    call trap
    pop %eax
    popa
    add $12, %esp
    popf
    ret

/* Copied to 0x8000, where a STARTUP message sends the second processor in real mode. */
.globl trampoline, trampoline_end
.code16
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl 0x8000 + (table - trampoline)
    mov $0x11, %eax
    mov %eax, %cr0
    ljmpl $0x10, $second
table:
    .word 39
    .long 0x500
trampoline_end:
.code32
second:
    mov $0x18, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $second_stack_end, %esp
    jmp other

.bss
.balign 16
.space 16384
stack_end:
.space 4096
second_stack_end:
.section .note.GNU-stack, "", @progbits
