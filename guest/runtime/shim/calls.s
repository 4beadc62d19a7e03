# What CPL3 cannot do for itself. A call is an int3: where CPL0 code is interpreted, exceptions do lead to CPL0, but
# syscall need not. rax = number of the call, rdi and rsi = arguments, rax = result; rcx, rdx, rdi and rsi are lost.
# vectors.s jumps here through the table at the end.

.section .text.calls, "ax"
.code64
call_in8:
    movl %edi, %edx
    xorl %eax, %eax
    inb %dx, %al
    iretq
call_in16:
    movl %edi, %edx
    xorl %eax, %eax
    inw %dx, %ax
    iretq
call_in32:
    movl %edi, %edx
    inl %dx, %eax
    iretq
call_out8:
    movl %edi, %edx
    movl %esi, %eax
    outb %al, %dx
    iretq
call_out16:
    movl %edi, %edx
    movl %esi, %eax
    outw %ax, %dx
    iretq
call_out32:
    movl %edi, %edx
    movl %esi, %eax
    outl %eax, %dx
    iretq

call_serial:                        # rdi = bytes, rsi = how many, 1 to 16: what the transmitter takes at once
    movl $0x3fd, %edx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    movl $0x3f8, %edx
2:  movb (%rdi), %al
    incq %rdi
    outb %al, %dx
    decl %esi
    jnz 2b
    iretq

call_wait:                          # halts if the counter at rdi is still rsi. sti delays interrupts past hlt
    cmpq %rsi, (%rdi)
    jne 1f
    sti
    hlt
    cli
1:  iretq

call_read_msr:
    movl %edi, %ecx
    rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    iretq
call_write_msr:
    movl %edi, %ecx
    movl %esi, %eax
    movq %rsi, %rdx
    shrq $32, %rdx
    wrmsr
    iretq

# Cycles of port accesses. Between the two readings of the time stamp counter is what the access needs and the move that
# keeps the first reading: 32 bits of it, so a time over 2^32 cycles is wrong. An access that exits orders itself.
call_time_nothing:
    rdtsc
    movl %eax, %ecx
    rdtsc
    subl %ecx, %eax
    iretq
call_time_in32:                     # one 32-bit read of port edi
    rdtsc
    movl %eax, %ecx
    movl %edi, %edx
    inl %dx, %eax
    rdtsc
    subl %ecx, %eax
    iretq
call_time_out32:                    # one 32-bit write of esi to port edi
    rdtsc
    movl %eax, %ecx
    movl %edi, %edx
    movl %esi, %eax
    outl %eax, %dx
    rdtsc
    subl %ecx, %eax
    iretq
call_time_config_read:              # one read by CF8/CFC: both instructions. edi = value for CF8
    rdtsc
    movl %eax, %ecx
    movl %edi, %eax
    movl $0xcf8, %edx
    outl %eax, %dx
    movl $0xcfc, %edx
    inl %dx, %eax
    rdtsc
    subl %ecx, %eax
    iretq
call_time_config_write:             # one write by CF8/CFC: both instructions. edi = value for CF8, esi = for CFC
    rdtsc
    movl %eax, %ecx
    movl %edi, %eax
    movl $0xcf8, %edx
    outl %eax, %dx
    movl $0xcfc, %edx
    movl %esi, %eax
    outl %eax, %dx
    rdtsc
    subl %ecx, %eax
    iretq

call_triple_fault:
    lidt no_idt_pointer
    ud2

call_reset_and_stay:                # a reset by port 0xcf9, and then no exit: halts if edi is 1, spins if it is 0
    movl $0xcf9, %edx
    movl $0x06, %eax
    outb %al, %dx
    testl %edi, %edi
1:  jz 1b
    hlt
    jmp 1b

.section .rodata.calls, "a"
.balign 8
.global calls
calls:                              # numbers: call.rs
    .quad call_in8
    .quad call_in16
    .quad call_in32
    .quad call_out8
    .quad call_out16
    .quad call_out32
    .quad call_serial
    .quad call_wait
    .quad call_read_msr
    .quad call_write_msr
    .quad call_time_nothing
    .quad call_time_in32
    .quad call_time_out32
    .quad call_time_config_read
    .quad call_time_config_write
    .quad call_triple_fault
    .quad call_reset_and_stay
