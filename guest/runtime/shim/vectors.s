# One stub of 32 bytes per vector. An interrupt's stub notes the time first, then counts, so that whoever sees the
# count also sees the time. Few instructions: on some hypervisors each takes a microsecond here.
#
# Handlers do not nest: interrupts are off until iretq. An NMI may come in the middle of one and only counts.

.section .vectors, "ax"
.code64
.global vector_stubs
vector_stubs:
.set vector, 0
.rept 32                            # exceptions
    .balign 32
    .if vector == 3
    jmpq *calls(, %rax, 8)          # calls.s
    .endif
    .if vector == 2
    lock incq vector_records + vector * 16(%rip)
    iretq
    .endif
    .if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    pushq $0                        # the others push an error code themselves
    .endif
    pushq $vector
    jmp exception
    .set vector, vector + 1
.endr
.rept 223                           # interrupts
    .balign 32
    pushq %rax
    pushq %rdx
    rdtsc
    movl %eax, vector_records + vector * 16 + 8(%rip)
    movl %edx, vector_records + vector * 16 + 12(%rip)
    lock incq vector_records + vector * 16(%rip)
    .if vector < 0x30               # interrupt.rs: HELD
    jmp held_interrupt
    .else
    jmp end_of_interrupt
    .endif
    .set vector, vector + 1
.endr
    .balign 32                      # 255, spurious: an end of interrupt does no harm then, since no other is in service;
    pushq %rax                      # and devices may be told to send this vector
    pushq %rdx
    lock incq vector_records + 255 * 16(%rip)
    jmp end_of_interrupt
    .balign 32
.global vector_stubs_end
vector_stubs_end:

held_interrupt:
    cmpl $0, hold_interrupts(%rip)
    jne 1f
end_of_interrupt:
    movl $0xfee000b0, %edx
    xorl %eax, %eax
    movl %eax, (%rdx)
1:  popq %rdx
    popq %rax
    iretq

# Stack: vector, error code, rip, cs, rflags, rsp, ss. Rust prints it at CPL3 and ends the guest.
exception:
    cmpl $0, exception_record + 48(%rip)
    jne 1f
    movl $1, exception_record + 48(%rip)
    popq exception_record(%rip)
    popq exception_record + 8(%rip)
    popq exception_record + 16(%rip)
    popq exception_record + 24(%rip)
    movq 8(%rsp), %rax
    movq %rax, exception_record + 32(%rip)
    movq %cr2, %rax
    movq %rax, exception_record + 40(%rip)
    movl $exception_record, %edi
    pushq $0x1b
    pushq $report_stack_top - 8     # as if called: rsp is 8 past a multiple of 16
    pushq $0x002
    pushq $0x23
    pushq $exception_report
    iretq
1:  movb $0x7e, %al                 # an exception while one is being reported
    outb %al, $0xf4
    hlt
    jmp 1b

.section .bss.vectors, "aw", @nobits
.balign 16
.global vector_records
vector_records:                     # per vector: count, time stamp of the last one
    .skip 256 * 16
.global hold_interrupts
hold_interrupts:
    .long 0
    .balign 8
exception_record:                   # vector, error code, rip, cs, rsp, cr2, busy
    .skip 56
