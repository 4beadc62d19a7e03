# Everything the processor reads by itself: task state segments, descriptors, page tables. All of it is constant, so
# the assembler writes it and nothing has to be built at run time, where CPL0 code may be slow.
#
# A descriptor or a gate holds its address in pieces, which no relocation can express. So the addresses are fixed
# here, and image.ld places the sections there and checks that they are.
.set TSS_BASE, 0x100000
.set VECTORS_BASE, 0x10a000
.set MAX_CPUS, 64

.section .tables, "aw"

# Task state segments, one per vCPU, 128 bytes apart. Only the stack for CPL0 is used.
.global tss_array
tss_array:
.set cpu, 0
.rept MAX_CPUS
    .long 0
    .quad kernel_stacks + (cpu + 1) * 4096
    .skip 90
    .short 104                      # no I/O permission bitmap: ports are reached through the shim
    .skip 24
    .set cpu, cpu + 1
.endr

.balign 4096
.global gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08 CPL0 code, 64 bits
    .quad 0x00cf93000000ffff        # 0x10 CPL0 data
    .quad 0x00cff3000000ffff        # 0x18 CPL3 data
    .quad 0x00affb000000ffff        # 0x20 CPL3 code, 64 bits
    .quad 0x00cf9b000000ffff        # 0x28 CPL0 code, 32 bits, for vCPUs on their way from real mode
.global gdt_tss
gdt_tss:                            # 0x30 and on, 16 bytes each
.set cpu, 0
.rept MAX_CPUS
    .set base, TSS_BASE + cpu * 128
    .quad 103 | ((base & 0xffffff) << 16) | (0x89 << 40) | ((base >> 24) << 56)
    .quad 0
    .set cpu, cpu + 1
.endr
gdt_end:

.balign 8
.global gdt_pointer
gdt_pointer:
    .short gdt_end - gdt - 1
    .quad gdt
.balign 8
.global idt_pointer
idt_pointer:
    .short 4095
    .quad idt
.balign 8
.global no_idt_pointer              # a limit that holds no gate, so that the next exception is a triple fault
no_idt_pointer:
    .short 0
    .quad 0

.balign 4096
idt:
.set vector, 0
.rept 256
    .set stub, VECTORS_BASE + vector * 32
    .short stub & 0xffff
    .short 0x08
    .byte 0
    .if vector == 3
    .byte 0xee                      # CPL3 may use int3, for its calls
    .else
    .byte 0x8e
    .endif
    .short stub >> 16
    .quad 0
    .set vector, vector + 1
.endr

# 0 to 4 GiB, identity mapped with 2 MiB pages, open to CPL3. The last GiB holds BARs, I/O APIC and local APIC: uncached.
# paging.rs adds what lies above.
.balign 4096
.global pml4
pml4:
    .quad pdpt + 7
    .skip 4096 - 8
pdpt:
    .quad pd + 0x0007
    .quad pd + 0x1007
    .quad pd + 0x2007
    .quad pd + 0x3007
    .skip 4096 - 32
pd:
.set page, 0
.rept 2048
    .if page < 1536
    .quad page * 0x200000 + 0x087
    .else
    .quad page * 0x200000 + 0x09f
    .endif
    .set page, page + 1
.endr

.section .stacks, "aw", @nobits
.balign 4096
kernel_stacks:                      # for interrupts and exceptions taken at CPL3
    .skip MAX_CPUS * 4096
.global user_stacks
user_stacks:
    .skip MAX_CPUS * 32768
.global report_stack_top
report_stack:                       # for the report of an exception, whatever state the other stacks are in
    .skip 32768
report_stack_top:
