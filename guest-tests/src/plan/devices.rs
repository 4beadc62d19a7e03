use super::{Bdf, Place, Plan};
use crate::DiskImage;

/// The file in the scenario's directory that the user network gives out by TFTP.
pub const FETCHED: &str = "fetched";

impl Plan {
    pub fn nvme<'p>(&mut self, at: impl Into<Place<'p>>, image: &DiskImage) -> Bdf {
        self.nvme_with(at, image, "")
    }

    /// `properties` as QEMU takes them, each with a comma before it: `,msix_qsize=2048`.
    pub fn nvme_with<'p>(&mut self, at: impl Into<Place<'p>>, image: &DiskImage, properties: &str) -> Bdf {
        let drive = self.drive(image);
        self.function(at, &format!("nvme,drive={drive},serial={drive}{properties}"))
    }

    /// A SATA controller with one disk.
    pub fn ahci<'p>(&mut self, at: impl Into<Place<'p>>, image: &DiskImage) -> Bdf {
        let drive = self.drive(image);
        let bdf = self.function(at, "ich9-ahci");
        self.argument("-device", format!("ide-hd,drive={drive},bus={}.0", bdf.qemu_id()));
        bdf
    }

    /// A SAS controller with one disk; `model` is `megasas` or `megasas-gen2`.
    pub fn sas<'p>(&mut self, at: impl Into<Place<'p>>, model: &str, image: &DiskImage) -> Bdf {
        let drive = self.drive(image);
        let bdf = self.function(at, model);
        self.argument("-device", format!("scsi-hd,drive={drive},bus={}.0", bdf.qemu_id()));
        bdf
    }

    /// A host controller with an SD card.
    pub fn sdhci<'p>(&mut self, at: impl Into<Place<'p>>, image: &DiskImage) -> Bdf {
        let drive = self.drive(image);
        let bdf = self.function(at, "sdhci-pci");
        self.argument("-device", format!("sd-card,drive={drive}"));
        bdf
    }

    /// A USB 3 controller with a disk and a tablet.
    pub fn xhci<'p>(&mut self, at: impl Into<Place<'p>>, image: &DiskImage) -> Bdf {
        let drive = self.drive(image);
        let bdf = self.function(at, "qemu-xhci");
        let bus = bdf.qemu_id();
        self.argument("-device", format!("usb-storage,drive={drive},bus={bus}.0"));
        self.argument("-device", format!("usb-tablet,bus={bus}.0"));
        bdf
    }

    /// A virtio disk whose DMA goes through the IOMMU.
    pub fn virtio_block<'p>(&mut self, at: impl Into<Place<'p>>, image: &DiskImage) -> Bdf {
        let drive = self.drive(image);
        self.function(at, &format!("virtio-blk-pci,drive={drive},{VIRTIO}"))
    }

    /// A virtio NIC whose DMA goes through the IOMMU.
    pub fn virtio_network<'p>(&mut self, at: impl Into<Place<'p>>) -> Bdf {
        self.network(at, &format!("virtio-net-pci,{VIRTIO}"))
    }

    pub fn e1000e<'p>(&mut self, at: impl Into<Place<'p>>) -> Bdf {
        self.network(at, "e1000e")
    }

    /// A NIC of a model of QEMU's, on a network of its own.
    pub fn network<'p>(&mut self, at: impl Into<Place<'p>>, model: &str) -> Bdf {
        let id = self.backend();
        self.networks.push(id.clone());
        self.function(at, &format!("{model},netdev={id}"))
    }

    /// A sound controller with a codec; what is played goes to `NAME.wav` in the scenario's directory.
    pub fn sound<'p>(&mut self, at: impl Into<Place<'p>>, name: &str) -> Bdf {
        let id = self.backend();
        self.sounds.push((id.clone(), format!("{name}.wav")));
        let bdf = self.function(at, "ich9-intel-hda");
        self.argument("-device", format!("hda-output,audiodev={id},bus={}.0", bdf.qemu_id()));
        bdf
    }

    /// QEMU's teaching device: factorial unit, DMA engine (28 address bits unless `dma_mask` says more), MSI.
    pub fn edu<'p>(&mut self, at: impl Into<Place<'p>>, dma_mask: Option<u64>) -> Bdf {
        match dma_mask {
            Some(mask) => self.function(at, &format!("edu,dma_mask={mask:#x}")),
            None => self.function(at, "edu"),
        }
    }

    /// A 4 KiB memory BAR and an I/O BAR, no interrupts.
    pub fn pci_testdev(&mut self, at: &str) -> Bdf {
        self.function(at, "pci-testdev")
    }

    /// A display whose frame buffer is a 32-bit prefetchable BAR of 16 to 256 MiB.
    pub fn display(&mut self, at: &str, mib: u32) -> Bdf {
        self.function(at, &format!("bochs-display,vgamem={mib}M"))
    }

    /// Shared memory as a 64-bit prefetchable BAR; `image` is what the host sees of it.
    pub fn ivshmem(&mut self, at: &str, image: &DiskImage, mib: u64) -> Bdf {
        let id = self.backend();
        self.argument(
            "-object",
            format!("memory-backend-file,id={id},share=on,size={mib}M,mem-path={}", image.path().display()),
        );
        self.function(at, &format!("ivshmem-plain,memdev={id}"))
    }

    /// Shared memory with doorbells: the peer is at the Unix socket `socket` in the scenario's directory, where it must
    /// listen before the machine is switched on.
    pub fn ivshmem_doorbell(&mut self, at: &str, socket: &str, vectors: u16) -> Bdf {
        let id = self.backend();
        self.argument("-chardev", format!("socket,id={id},path={socket}"));
        self.function(at, &format!("ivshmem-doorbell,chardev={id},vectors={vectors}"))
    }

    fn drive(&mut self, image: &DiskImage) -> String {
        let id = self.backend();
        // The host's page cache is what the scenario looks at, so flushing to the disk below is of no use.
        // A block device of this kind stays when what it is plugged into is unplugged.
        self.argument(
            "-blockdev",
            format!(
                "driver=raw,node-name={id},cache.no-flush=on,file.driver=file,file.filename={}",
                image.path().display()
            ),
        );
        id
    }

    fn backend(&mut self) -> String {
        self.backends += 1;
        format!("backend{}", self.backends)
    }
}

/// No legacy interface, which would know no IOMMU.
const VIRTIO: &str = "iommu_platform=on,disable-legacy=on";
