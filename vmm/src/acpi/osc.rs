//! _OSC: which PCI Express features of the host bridges the guest's kernel may drive itself (ACPI 6.5 §6.2.11, PCI
//! Firmware Specification 3.3 §4.5.1).

use acpi_tables::aml::{
    And, Arg, CreateDWordField, If, LessThan, Local, Method, MethodCall, NotEqual, Or, Path, Return, SizeOf,
    Store, Uuid, ZERO,
};
use acpi_tables::{Aml, AmlSink};

/// Method in the scope `\_SB` that the host bridges' _OSC call.
const SHARED: &str = "POSC";

/// UUID of the PCI host bridges' _OSC and the one revision it has.
const PCI_HOST_BRIDGE: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
const REVISION: u8 = 1;

/// Control bit 4, the PCI Express capability structure, is granted always, and bits 0 and 3, native hot-plug and
/// advanced error reporting, where there are root ports. PME, LTR and DPC are not: the root ports have none of them, and
/// nothing else is there that could have, so a guest would only arm reports that never come.
const CAPABILITY_STRUCTURE: u8 = 1 << 4;
const NATIVE_HOT_PLUG: u8 = 1 << 0;
const ADVANCED_ERRORS: u8 = 1 << 3;

/// Bits of the status, the first word of the answer.
const FAILURE: u8 = 1 << 1;
const UNRECOGNIZED_UUID: u8 = 1 << 2;
const UNRECOGNIZED_REVISION: u8 = 1 << 3;
const CAPABILITIES_MASKED: u8 = 1 << 4;
/// Offset of the control word in the buffer, and the length of a buffer that has one.
const CONTROL: u8 = 8;
const LENGTH: u8 = 12;

/// `Method (POSC, 5)` for the scope `\_SB`: UUID, revision, count of words, buffer, what is granted; gives the buffer
/// back.
///
/// Whether the guest queries or demands makes no difference, for nothing is switched here: what is not granted is
/// taken out of the control word, and the status says so.
pub(super) fn shared_method(sink: &mut dyn AmlSink) {
    let (uuid, revision, buffer, granted, asked) = (Arg(0), Arg(1), Arg(3), Arg(4), Local(0));
    let (status, control) = (Path::new("STAT"), Path::new("CTRL"));
    let expected = Uuid::new(PCI_HOST_BRIDGE);
    let answer = Return::new(&buffer);
    Method::new(
        Path::new(SHARED),
        5,
        // The names of the two fields are made anew in each call.
        true,
        vec![
            &CreateDWordField::new(&status, &buffer, &ZERO),
            &If::new(
                &NotEqual::new(&uuid, &expected),
                vec![&Or::new(&status, &status, &UNRECOGNIZED_UUID), &answer],
            ),
            &If::new(
                &NotEqual::new(&revision, &REVISION),
                vec![&Or::new(&status, &status, &UNRECOGNIZED_REVISION), &answer],
            ),
            &If::new(
                &LessThan::new(&SizeOf::new(&buffer), &LENGTH),
                vec![&Or::new(&status, &status, &FAILURE), &answer],
            ),
            &CreateDWordField::new(&control, &buffer, &CONTROL),
            &Store::new(&asked, &control),
            &And::new(&control, &asked, &granted),
            &If::new(
                &NotEqual::new(&control, &asked),
                vec![&Or::new(&status, &status, &CAPABILITIES_MASKED)],
            ),
            &answer,
        ],
    )
    .to_aml_bytes(sink);
}

/// `Method (_OSC, 4)` of a host bridge.
pub(super) struct Osc {
    /// The guest may drive the slots of root ports, and hears of errors behind them.
    pub hot_plug: bool,
}

impl Aml for Osc {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let arguments = [Arg(0), Arg(1), Arg(2), Arg(3)];
        let granted =
            CAPABILITY_STRUCTURE | if self.hot_plug { NATIVE_HOT_PLUG | ADVANCED_ERRORS } else { 0 };
        let arguments =
            arguments.iter().map(|argument| argument as &dyn Aml).chain([&granted as &dyn Aml]).collect();
        let call = MethodCall::new(Path::new(SHARED), arguments);
        Method::new(Path::new("_OSC"), 4, false, vec![&Return::new(&call)]).to_aml_bytes(sink);
    }
}
