//! The columns of a list, and how they are chosen.

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Device node.
    Dev,
    /// Vendor id.
    Vendor,
    /// Device id.
    Device,
    /// Vendor of the subsystem.
    Subvendor,
    /// The subsystem.
    Subdevice,
    /// Revision id.
    Rev,
    /// Physical path.
    Path,
    /// Vendor and device in words.
    Label,
    /// What VMs by name make of it. pptadm has no such column, so `all` has it not.
    State,
}

impl Field {
    /// Those of `-o all`, in its order: all that pptadm has.
    pub const ALL: [Field; 8] = [
        Field::Dev,
        Field::Vendor,
        Field::Device,
        Field::Subvendor,
        Field::Subdevice,
        Field::Rev,
        Field::Path,
        Field::Label,
    ];
    /// Those that are shown unless others are asked for.
    pub const DEFAULT: [Field; 4] = [Field::Dev, Field::Vendor, Field::Device, Field::Path];

    /// Its heading.
    pub fn name(self) -> &'static str {
        match self {
            Field::Dev => "DEV",
            Field::Vendor => "VENDOR",
            Field::Device => "DEVICE",
            Field::Subvendor => "SUBVENDOR",
            Field::Subdevice => "SUBDEVICE",
            Field::Rev => "REV",
            Field::Path => "PATH",
            Field::Label => "LABEL",
            Field::State => "STATE",
        }
    }

    /// Characters from its start to that of the next column.
    pub fn width(self) -> usize {
        match self {
            Field::Dev => "/dev/pptXX".len() + 1,
            Field::Path => 50,
            Field::Label => 60,
            Field::State => 20,
            narrow => narrow.name().len() + 1,
        }
    }
}

/// Columns that cannot be shown. The words are pptadm's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// Programs have to say which, as there may be more of them one day.
    #[error("output field `all' invalid in parsable mode")]
    All,
    /// None, for a program.
    #[error("output fields must be specified in parsable mode")]
    NotSpecified,
    /// No name is one of a column.
    #[error("no valid output fields")]
    NoneValid,
    /// Names that are of no column.
    #[error("{}", unknown("unknown output field", .0))]
    Unknown(Vec<String>),
}

/// Columns that are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// In the order asked for; one may come twice.
    pub fields: Vec<Field>,
    /// Names that are of no column, and ignored.
    pub ignored: Vec<String>,
}

impl Chosen {
    /// From the names that a user gives, in any case and with commas between them, or `all`.
    pub fn parse(text: &str, parsable: bool) -> Result<Chosen, FieldsError> {
        let all = text.eq_ignore_ascii_case("all");
        match () {
            () if parsable && text.is_empty() => return Err(FieldsError::NotSpecified),
            () if parsable && all => return Err(FieldsError::All),
            () if all => return Ok(Chosen { fields: Field::ALL.to_vec(), ignored: Vec::new() }),
            () => {}
        }
        let mut chosen = Chosen { fields: Vec::new(), ignored: Vec::new() };
        for name in text.split(',').filter(|name| !name.is_empty()) {
            match Field::ALL
                .into_iter()
                .chain([Field::State])
                .find(|field| field.name().eq_ignore_ascii_case(name))
            {
                Some(field) => chosen.fields.push(field),
                None => chosen.ignored.push(name.to_owned()),
            }
        }
        if chosen.fields.is_empty() {
            Err(FieldsError::NoneValid)
        } else if parsable && !chosen.ignored.is_empty() {
            Err(FieldsError::Unknown(chosen.ignored))
        } else {
            Ok(chosen)
        }
    }

    /// What is said of names that are ignored.
    pub fn warning(&self) -> Option<String> {
        (!self.ignored.is_empty()).then(|| unknown("ignoring unknown output field", &self.ignored))
    }
}

fn unknown(what: &str, names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}'")).collect();
    format!("{what}{}: {}", if names.len() > 1 { "s" } else { "" }, quoted.join(" "))
}
