# From the loader's 32-bit protected mode (or, for further vCPUs, from real mode) to Rust at CPL3.
#
# Rust runs at CPL3 so that it may use SSE, which the precompiled `core` does: a hypervisor that interprets CPL0
# code need not know those instructions. CPL0 keeps only what it must: this file, vectors.s and calls.s.

.section .note.pvh, "a", @note
.balign 4
    .long 4
    .long 8
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .text.entry, "ax"
.code32
.global pvh_entry
pvh_entry:                          # paging off, flat segments, ebx = address of hvm_start_info
    cld
    cli
    movl %ebx, start_info_address
    lgdtl gdt_pointer
    movl $1, next_cpu
    movb $0xff, %al                 # both PICs masked: nobody expects their interrupts
    outb %al, $0x21
    outb %al, $0xa1
    xorl %edi, %edi

enter_long_mode:                    # edi = number of this vCPU
    movl %cr4, %eax
    orl $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          # EFER
    rdmsr
    orl $0x100, %eax                # LME
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffff3, %eax          # caches on; no x87 emulation, no task switched
    orl $0x80010023, %eax           # PG, WP, NE, MP, PE
    movl %eax, %cr0
    ljmpl $0x08, $long_mode

.code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %edi, %ebx
    shll $4, %ebx
    movb $0x89, gdt_tss + 5(%rbx)   # not busy: it may be after a reset that did not reload the image
    leal 0x30(%rbx), %eax
    ltr %ax
    lidt idt_pointer
    leal 1(%rdi), %eax
    shll $15, %eax
    addl $user_stacks, %eax
    movl %edi, %ecx
    shll $12, %ecx
    leal kernel_stacks + 4096(%rcx), %esp
    pushq $0x1b
    pushq %rax
    pushq $0x202                    # the local APIC is off or its lines are the PICs': nothing comes yet
    pushq $0x23
    pushq $user_start
    iretq

user_start:                         # CPL3, edi = number of this vCPU
    testl %edi, %edi
    jnz 1f
    movl $bss_start, %edi           # a reset does not clear it
    movl $bss_end, %ecx
    subl %edi, %ecx
    xorl %eax, %eax
    rep stosb
    xorl %edi, %edi
1:  xorl %ebp, %ebp
    call cpu_main
    ud2

# The first code of a further vCPU. cpus.rs copies it to a page below 1 MiB, whose number is the start-up IPI's vector.
.section .rodata.trampoline, "a"
.code16
.global trampoline
trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt - trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x28, $cpu_entry
.balign 4
trampoline_gdt:
    .short 0x30 - 1
    .long gdt
.global trampoline_end
trampoline_end:

.section .text.cpu_entry, "ax"
.code32
cpu_entry:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    lgdtl gdt_pointer
    movl $1, %edi
    lock xaddl %edi, next_cpu
    cmpl $64, %edi
    jb enter_long_mode
1:  hlt                             # more vCPUs than there are stacks
    jmp 1b

.section .data.entry, "aw"
.balign 8
.global start_info_address
start_info_address:
    .quad 0
next_cpu:                           # number that the next further vCPU takes
    .long 1
.code64
