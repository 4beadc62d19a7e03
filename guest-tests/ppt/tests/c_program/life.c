/* The life of a VM with one function as a program in C sees it, compiled with declarations made from abi.json. */

#include <errno.h>
#include <string.h>

#include "ppt_abi.h"
#include "system.h"

/* The simulated function: its ids, and its I/O BAR, through which all its registers are reached. */
enum {
    VENDOR = 0x5350,
    DEVICE = 0x0001,
    IO_BAR = 1,
    IO_SCRATCH = 0x4,
    IO_INDEX = 0x8,
    IO_DATA = 0xc,
    RAISE = 0x48,
    ID = 0x50544c53,
};

#define GPA 0x10000000ull
#define ADDR 0xfee01000ull

struct run {
    const struct system *system;
    int vm, ppt;
};

static void is(const struct run *run, int line, const char *what, int64_t found, int64_t expected)
{
    if (found != expected)
        run->system->wrong(run->system->context, line, what, found, expected);
}
#define IS(found, expected) is(run, __LINE__, #found, (int64_t)(found), (int64_t)(expected))

static int call(const struct run *run, int fd, int request, void *argument)
{
    return run->system->ioctl(run->system->context, fd, request, argument);
}

static int open_node(const struct run *run, const char *path)
{
    return run->system->open(run->system->context, path);
}

static int named(const struct run *run, int control, int request, const char *name)
{
    struct vm_create_req create = {.flags = 0};
    strncpy(create.name, name, sizeof(create.name) - 1);
    return call(run, control, request, &create);
}

static int owner(const struct run *run, int vm, int request, int pptfd)
{
    struct vm_pptdev argument = {.pptfd = pptfd};
    return call(run, vm, request, &argument);
}

static int mmio(const struct run *run, int request, int pptfd, uint64_t gpa, uint64_t hpa, size_t len)
{
    struct vm_pptdev_mmio argument = {.pptfd = pptfd, .gpa = gpa, .hpa = hpa, .len = len};
    return call(run, run->vm, request, &argument);
}

static int msi(const struct run *run, int vcpu, int pptfd, int numvec, uint64_t addr, uint64_t msg)
{
    struct vm_pptdev_msi argument = {.vcpu = vcpu, .pptfd = pptfd, .numvec = numvec, .msg = msg, .addr = addr};
    return call(run, run->vm, VM_PPTDEV_MSI, &argument);
}

static int msix(const struct run *run, int vcpu, int pptfd, int idx, uint64_t msg, uint32_t control)
{
    struct vm_pptdev_msix argument = {
        .vcpu = vcpu, .pptfd = pptfd, .idx = idx, .msg = msg, .vector_control = control, .addr = ADDR};
    return call(run, run->vm, VM_PPTDEV_MSIX, &argument);
}

static int port(const struct run *run, int request, uint32_t bar, uint32_t off, uint32_t width, uint32_t *data)
{
    struct ppt_bar_io io = {.pbi_bar = bar, .pbi_off = off, .pbi_width = width, .pbi_data = *data};
    int result = call(run, run->ppt, request, &io);
    *data = io.pbi_data;
    return result;
}

static void raise_vector(const struct run *run, uint32_t vector)
{
    uint32_t index = RAISE;
    IS(port(run, PPT_BAR_WRITE, IO_BAR, IO_INDEX, 4, &index), 0);
    IS(port(run, PPT_BAR_WRITE, IO_BAR, IO_DATA, 4, &vector), 0);
}

/* So many interrupts came, and the last was this. */
static void delivered(const struct run *run, int line, int count, uint64_t addr, uint32_t msg)
{
    uint64_t last_addr = 0;
    uint32_t last_msg = 0;
    int found = run->system->delivered(run->system->context, &last_addr, &last_msg);
    is(run, line, "interrupts", found, count);
    if (found > 0 && count > 0) {
        is(run, line, "address", (int64_t)last_addr, (int64_t)addr);
        is(run, line, "message", last_msg, msg);
    }
}
#define DELIVERED(count, addr, msg) delivered(run, __LINE__, count, addr, msg)

static uint64_t in_guest(const struct run *run, uint64_t gpa)
{
    return run->system->in_guest(run->system->context, gpa);
}

static uint64_t base_of(const struct run *run, uint32_t bar)
{
    struct ppt_bar_query query = {.pbq_baridx = bar};
    IS(call(run, run->ppt, PPT_BAR_QUERY, &query), 0);
    return query.pbq_base;
}

static void not_ours(const struct run *run)
{
    struct vm_pptdev_limits limits = {.pptfd = run->ppt};
    IS(owner(run, run->vm, VM_UNBIND_PPTDEV, run->ppt), -EBUSY);
    IS(owner(run, run->vm, VM_PPTDEV_DISABLE_MSIX, run->ppt), -EBUSY);
    IS(call(run, run->vm, VM_GET_PPTDEV_LIMITS, &limits), -EBUSY);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA, base_of(run, 2), 0x1000), -EBUSY);
    IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, run->ppt, GPA, 0, 0x1000), -EBUSY);
    IS(msi(run, 0, run->ppt, 1, ADDR, 0x40), -EBUSY);
    IS(msix(run, 0, run->ppt, 0, 0x40, 0), -EBUSY);
}

static void not_a_node(const struct run *run, int pptfd)
{
    struct vm_pptdev_limits limits = {.pptfd = pptfd};
    IS(owner(run, run->vm, VM_BIND_PPTDEV, pptfd), -EBADF);
    IS(owner(run, run->vm, VM_UNBIND_PPTDEV, pptfd), -EBADF);
    IS(owner(run, run->vm, VM_PPTDEV_DISABLE_MSIX, pptfd), -EBADF);
    IS(call(run, run->vm, VM_GET_PPTDEV_LIMITS, &limits), -EBADF);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, pptfd, GPA, 0x1000, 0x1000), -EBADF);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, pptfd, GPA + 1, 0x1000, 0x1000), -EINVAL);
    IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, pptfd, GPA, 0x1000, 0x1000), -EBADF);
    IS(msi(run, 0, pptfd, 1, ADDR, 0x40), -EBADF);
    IS(msix(run, 0, pptfd, 0, 0x40, 0), -EBADF);
}

static void nowhere(const struct run *run)
{
    static const int of_ppt[] = {PPT_CFG_READ, PPT_CFG_WRITE, PPT_BAR_QUERY, PPT_BAR_READ, PPT_BAR_WRITE};
    static const int of_vm[] = {VM_BIND_PPTDEV, VM_UNBIND_PPTDEV, VM_MAP_PPTDEV_MMIO, VM_UNMAP_PPTDEV_MMIO,
                                VM_PPTDEV_MSI, VM_PPTDEV_MSIX, VM_GET_PPTDEV_LIMITS, VM_PPTDEV_DISABLE_MSIX,
                                VM_REINIT, VM_ALLOC_MEMSEG, VM_MMAP_MEMSEG, VM_MUNMAP_MEMSEG};
    for (size_t i = 0; i < sizeof(of_ppt) / sizeof(*of_ppt); i++) {
        IS(call(run, run->ppt, of_ppt[i], NULL), -EFAULT);
        IS(call(run, run->vm, of_ppt[i], NULL), -ENOTTY);
    }
    for (size_t i = 0; i < sizeof(of_vm) / sizeof(*of_vm); i++) {
        IS(call(run, run->vm, of_vm[i], NULL), -EFAULT);
        IS(call(run, run->ppt, of_vm[i], NULL), -ENOTTY);
        IS(call(run, -1, of_vm[i], NULL), -EBADF);
    }
}

static void wire_memory(const struct run *run)
{
    struct vm_memseg segment = {.segid = 0, .len = 1 << 20};
    struct vm_memmap map = {.segid = 0, .len = 1 << 20, .prot = 7, .flags = VM_MEMMAP_F_WIRED};
    struct vm_munmap unmap = {.gpa = 0, .len = 1 << 20};
    IS(call(run, run->vm, VM_ALLOC_MEMSEG, &segment), 0);
    IS(call(run, run->vm, VM_MMAP_MEMSEG, &map), 0);
    IS(call(run, run->vm, VM_MUNMAP_MEMSEG, &unmap), 0);
    IS(call(run, run->vm, VM_MMAP_MEMSEG, &map), 0);
}

static void configuration(const struct run *run)
{
    static const struct { uint64_t off; uint32_t width, data; int result; } reads[] = {
        {0, 4, (uint32_t)DEVICE << 16 | VENDOR, 0}, {0, 2, VENDOR, 0}, {2, 2, DEVICE, 0}, {1, 1, VENDOR >> 8, 0},
        {0, 3, 0, -EINVAL}, {0, 0, 0, -EINVAL}, {0, 8, 0, -EINVAL}, {256, 4, 0xffffffff, 0}, {1ull << 40, 1, 0xff, 0},
    };
    for (size_t i = 0; i < sizeof(reads) / sizeof(*reads); i++) {
        struct ppt_cfg_io io = {.pci_off = reads[i].off, .pci_width = reads[i].width};
        IS(call(run, run->ppt, PPT_CFG_READ, &io), reads[i].result);
        IS(io.pci_data, reads[i].data);
        IS(io.pci_off, reads[i].off);
        IS(io.pci_width, reads[i].width);
    }
    struct ppt_cfg_io write = {.pci_off = 4, .pci_width = 2, .pci_data = 6};
    IS(call(run, run->ppt, PPT_CFG_WRITE, &write), 0);
    write.pci_width = 5;
    IS(call(run, run->ppt, PPT_CFG_WRITE, &write), -EINVAL);
}

static void bars(const struct run *run)
{
    static const struct { uint32_t type; uint64_t size; int result; } expected[] = {
        {PCI_ADDR_MEM32, 0x1000, 0}, {PCI_ADDR_IO, 0x40, 0}, {PCI_ADDR_MEM64, 1 << 20, 0}, {0, 0, -ENOENT},
        {PCI_ADDR_MEM64, 0x10000, 0}, {0, 0, -ENOENT}, {0, 0, -EINVAL},
    };
    for (uint32_t i = 0; i <= PCI_BASE_NUM; i++) {
        struct ppt_bar_query query = {.pbq_baridx = i};
        IS(call(run, run->ppt, PPT_BAR_QUERY, &query), expected[i].result);
        IS(query.pbq_type, expected[i].type);
        IS(query.pbq_size, expected[i].size);
        IS(query.pbq_base != 0, expected[i].size != 0);
    }
    uint32_t data = 0;
    IS(port(run, PPT_BAR_READ, IO_BAR, 0, 4, &data), 0);
    IS(data, ID);
    IS(port(run, PPT_BAR_READ, IO_BAR, 1, 1, &data), 0);
    IS(data, ID >> 8 & 0xff);
    data = 0x12345678;
    IS(port(run, PPT_BAR_WRITE, IO_BAR, IO_SCRATCH, 4, &data), 0);
    IS(port(run, PPT_BAR_READ, IO_BAR, IO_SCRATCH + 2, 2, &data), 0);
    IS(data, 0x1234);
    static const struct { uint32_t bar, off, width; } wrong[] = {
        {0, 0, 4}, {2, 0, 4}, {3, 0, 4}, {6, 0, 4}, {1, 0, 3}, {1, 0x40, 1}, {1, 0x3d, 4}, {1, 0xffffffff, 4},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        IS(port(run, PPT_BAR_READ, wrong[i].bar, wrong[i].off, wrong[i].width, &data), -EINVAL);
        IS(port(run, PPT_BAR_WRITE, wrong[i].bar, wrong[i].off, wrong[i].width, &data), -EINVAL);
    }
}

static void memory(const struct run *run)
{
    uint64_t hpa = base_of(run, 2);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA, hpa, 1 << 20), 0);
    IS(in_guest(run, GPA), 1 << 20);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA + 0x1000, hpa, 0x1000), -ENOMEM);
    IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, run->ppt, GPA, 0, 0x1000), -ENOENT);
    IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, run->ppt, GPA, 1, 1 << 20), 0);
    IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, run->ppt, GPA, 1, 1 << 20), -ENOENT);
    IS(in_guest(run, GPA), 0);
    for (uint64_t i = 0; i < MAX_MMIOSEGS; i++)
        IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA + i * 0x2000, hpa + i * 0x1000, 0x1000), 0);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA + (1 << 20), hpa, 0x1000), -ENOSPC);
    for (uint64_t i = 1; i < MAX_MMIOSEGS; i++)
        IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, run->ppt, GPA + i * 0x2000, 0, 0x1000), 0);
    IS(in_guest(run, GPA), 0x1000);
    static const struct { uint64_t gpa, hpa, len; } wrong[] = {
        {0, 0, 0}, {1, 0, 0x1000}, {0, 1, 0x1000}, {0, 0, 1}, {0, 0x100000, 0x1000}, {0, -0x1000, 0x1000},
        {0, 0, 0x101000}, {-GPA - (2 << 20) - 0x2000, 0, 0x3000}, {0, 0, -0x1000},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA + (2 << 20) + wrong[i].gpa, hpa + wrong[i].hpa, wrong[i].len),
           -EINVAL);
    IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, GPA, base_of(run, IO_BAR) & ~0xfffull, 0x1000), -EINVAL);
}

static void table(const struct run *run)
{
    const struct system *s = run->system;
    void *address = NULL;
    IS(s->mmap(s->context, run->ppt, 0x10000, 0, &address), 0);
    if (address) {
        volatile uint32_t *last = (volatile uint32_t *)((char *)address + 0xfffc);
        *last = 0x600df00d;
        uint64_t gpa = GPA + (3 << 20), hpa = base_of(run, 4);
        IS(mmio(run, VM_MAP_PPTDEV_MMIO, run->ppt, gpa, hpa, 0x10000), 0);
        IS(*last, 0x600df00d);
        IS(mmio(run, VM_UNMAP_PPTDEV_MMIO, run->ppt, gpa, 0, 0x10000), 0);
        s->munmap(s->context, address, 0x10000);
    }
    IS(s->mmap(s->context, run->ppt, 0x1000, 0x800, &address), -EINVAL);
    IS(s->mmap(s->context, run->ppt, 0x1000, -0x1000, &address), -EINVAL);
    IS(s->mmap(s->context, run->ppt, 0, 0, &address), -EINVAL);
    IS(s->mmap(s->context, run->ppt, 0x1000, 0x10000, &address), -ENXIO);
    IS(s->mmap(s->context, run->vm, 0x1000, 0, &address), -ENODEV);
    IS(s->mmap(s->context, -1, 0x1000, 0, &address), -EBADF);
}

static void message_interrupts(const struct run *run)
{
    struct vm_pptdev_limits limits = {.pptfd = run->ppt};
    IS(call(run, run->vm, VM_GET_PPTDEV_LIMITS, &limits), 0);
    IS(limits.msi_limit, 8);
    IS(limits.msix_limit, 256);
    IS(limits.pptfd, run->ppt);

    IS(msix(run, 0, run->ppt, 3, 0x43, 0), 0);
    raise_vector(run, 3);
    DELIVERED(1, ADDR, 0x43);
    IS(msix(run, 0, run->ppt, 3, 0x43, 1), 0);
    raise_vector(run, 3);
    DELIVERED(0, 0, 0);
    IS(msix(run, VM_MAXCPU - 1, run->ppt, 3, 0x53, 0), 0);
    DELIVERED(1, ADDR, 0x53);
    IS(msix(run, 0, run->ppt, -1, 0x43, 0), -EINVAL);
    IS(msix(run, 0, run->ppt, 256, 0x43, 0), -EINVAL);
    IS(msix(run, -1, run->ppt, 3, 0x43, 0), -EINVAL);
    IS(msix(run, VM_MAXCPU + 1, -1, 3, 0x43, 0), -EINVAL);
    IS(msi(run, 0, run->ppt, 1, ADDR, 0x60), -EBUSY);
    IS(owner(run, run->vm, VM_PPTDEV_DISABLE_MSIX, run->ppt), 0);
    raise_vector(run, 3);
    DELIVERED(0, 0, 0);

    IS(msi(run, 0, run->ppt, 4, ADDR, 0x60), 0);
    raise_vector(run, 2);
    DELIVERED(1, ADDR, 0x62);
    IS(msix(run, 0, run->ppt, 0, 0x40, 0), -EBUSY);
    IS(msi(run, -1, run->ppt, 1, ADDR, 0x60), -EINVAL);
    IS(msi(run, 0, run->ppt, -1, ADDR, 0x60), -EINVAL);
    IS(msi(run, 0, run->ppt, MAX_MSIMSGS + 1, ADDR, 0x60), -EINVAL);
    raise_vector(run, 1);
    DELIVERED(1, ADDR, 0x61);
    IS(msi(run, 0, run->ppt, 9, ADDR, 0x60), -EINVAL);
    raise_vector(run, 1);
    DELIVERED(0, 0, 0);
    IS(msi(run, 0, run->ppt, 1, ADDR + 0x1000, 0x71), 0);
    raise_vector(run, 0);
    DELIVERED(1, ADDR + 0x1000, 0x71);
    IS(msi(run, 0, run->ppt, 0, 0, 0), 0);
    raise_vector(run, 0);
    DELIVERED(0, 0, 0);
}

void ppt_life(const struct system *system)
{
    struct run state = {.system = system}, *run = &state;
    int control = open_node(run, "/dev/vmmctl");
    IS(call(run, control, VMM_INTERFACE_VERSION, NULL), VMM_CURRENT_INTERFACE_VERSION);
    IS(call(run, control, VMM_VM_SUPPORTED, NULL), 0);
    IS(call(run, control, VMM_CHECK_IOMMU, NULL), 0);
    IS(call(run, control, VMM_CREATE_VM, NULL), -EFAULT);
    IS(open_node(run, "/dev/vmm/guest"), -ENOENT);
    IS(named(run, control, VMM_CREATE_VM, "guest"), 0);
    IS(named(run, control, VMM_CREATE_VM, "guest"), -EEXIST);
    IS(named(run, control, VMM_CREATE_VM, "other"), 0);
    state.vm = open_node(run, "/dev/vmm/guest");
    IS(call(run, run->vm, VMM_INTERFACE_VERSION, NULL), VMM_CURRENT_INTERFACE_VERSION);
    IS(open_node(run, "/dev/ppt1"), -ENOENT);
    state.ppt = open_node(run, "/dev/ppt0");
    struct run other = {.system = system, .vm = open_node(run, "/dev/vmm/other"), .ppt = open_node(run, "/dev/ppt0")};

    wire_memory(run);
    not_ours(run);
    nowhere(run);
    configuration(run);
    IS(owner(run, run->vm, VM_BIND_PPTDEV, run->ppt), 0);
    IS(owner(run, run->vm, VM_BIND_PPTDEV, run->ppt), -EBUSY);
    IS(owner(run, other.vm, VM_BIND_PPTDEV, run->ppt), -EBUSY);
    not_ours(&other);
    not_a_node(run, -1);
    not_a_node(run, control);
    bars(run);
    memory(run);
    table(run);
    message_interrupts(run);
    system->close(system->context, run->ppt);
    not_a_node(run, run->ppt);
    IS(owner(run, other.vm, VM_BIND_PPTDEV, other.ppt), -EBUSY);

    state.ppt = other.ppt;
    IS(in_guest(run, GPA), 0x1000);
    IS(owner(run, run->vm, VM_UNBIND_PPTDEV, run->ppt), 0);
    IS(in_guest(run, GPA), 0);
    not_ours(run);
    struct vm_reinit reinit = {.flags = 0};
    IS(owner(run, run->vm, VM_BIND_PPTDEV, run->ppt), 0);
    IS(call(run, run->vm, VM_REINIT, &reinit), 0);
    not_ours(run);
    IS(owner(run, other.vm, VM_BIND_PPTDEV, run->ppt), 0);
    not_ours(run);
    IS(named(run, control, VMM_DESTROY_VM, "other"), 0);
    IS(named(run, control, VMM_DESTROY_VM, "other"), -ENOENT);
    IS(owner(run, other.vm, VM_BIND_PPTDEV, run->ppt), -ENXIO);
    IS(owner(run, run->vm, VM_BIND_PPTDEV, run->ppt), 0);
    IS(named(run, control, VMM_DESTROY_VM, "guest"), 0);
    system->close(system->context, run->vm);
    IS(owner(run, run->vm, VM_BIND_PPTDEV, run->ppt), -EBADF);
}
