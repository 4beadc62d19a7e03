use serde_json::Value;

use crate::{Failure, Scenario, expect};

/// Version of the JSON form of `slotpass run --stats` (`vmm/STATS.md`) that this file reads.
const SCHEMA: u64 = 1;

/// What `--stats=json:FILE` counted.
#[derive(Clone, Debug)]
pub struct Stats {
    json: Value,
}

/// A part of a BAR: wholly mapped into the guest, or for reads, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub slot: String,
    pub bar: u64,
    pub offset: u64,
    pub size: u64,
    pub mapped: bool,
    /// Writes leave the guest, and reads do not.
    pub read_only: bool,
    /// Reads that left the guest.
    pub reads: u64,
    /// Reads and writes that left the guest.
    pub exits: u64,
}

impl Stats {
    /// Reads a file from the scenario's directory.
    pub fn read(scenario: &Scenario, name: &str) -> Result<Self, Failure> {
        let json: Value = serde_json::from_str(&scenario.text_of(name)?)
            .map_err(|error| Failure::NotAsExpected(format!("{name}: {error}")))?;
        let stats = Self { json };
        let schema = stats.number("/schema")?;
        expect!(schema == SCHEMA, "{name}: schema {schema} instead of {SCHEMA}");
        Ok(stats)
    }

    /// Reads and writes of memory that left the guest, of all vCPUs, whoever they were for.
    pub fn mmio_exits(&self) -> Result<u64, Failure> {
        Ok(self.number("/exits/mmio_read")? + self.number("/exits/mmio_write")?)
    }

    /// How often slotpass made a system call, by the name that the statistics have for it.
    pub fn calls(&self, name: &str) -> Result<u64, Failure> {
        self.number(&format!("/calls/{name}"))
    }

    /// The parts of all BARs of all functions.
    pub fn pieces(&self) -> Result<Vec<Piece>, Failure> {
        let mut pieces = Vec::new();
        for function in list(&self.json, "functions")? {
            let slot = function.get("slot").and_then(Value::as_str).ok_or_else(|| absent("slot"))?;
            for bar in list(function, "bars")? {
                for piece in list(bar, "pieces")? {
                    let reads = number(piece, "/reads")?;
                    pieces.push(Piece {
                        slot: slot.to_owned(),
                        bar: number(bar, "/bar")?,
                        offset: number(piece, "/offset")?,
                        size: number(piece, "/size")?,
                        mapped: piece
                            .get("mapped")
                            .and_then(Value::as_bool)
                            .ok_or_else(|| absent("mapped"))?,
                        read_only: piece
                            .get("read_only")
                            .and_then(Value::as_bool)
                            .ok_or_else(|| absent("read_only"))?,
                        reads,
                        exits: reads + number(piece, "/writes")?,
                    });
                }
            }
        }
        Ok(pieces)
    }

    /// The parts of one BAR, which must have some.
    pub fn bar(&self, slot: &str, bar: u64) -> Result<Vec<Piece>, Failure> {
        let pieces: Vec<Piece> =
            self.pieces()?.into_iter().filter(|piece| piece.slot == slot && piece.bar == bar).collect();
        expect!(!pieces.is_empty(), "no BAR {bar} at slot {slot} was counted");
        Ok(pieces)
    }

    fn number(&self, pointer: &str) -> Result<u64, Failure> {
        number(&self.json, pointer)
    }
}

fn number(json: &Value, pointer: &str) -> Result<u64, Failure> {
    json.pointer(pointer).and_then(Value::as_u64).ok_or_else(|| absent(pointer))
}

fn list<'j>(json: &'j Value, name: &str) -> Result<&'j Vec<Value>, Failure> {
    json.get(name).and_then(Value::as_array).ok_or_else(|| absent(name))
}

fn absent(name: &str) -> Failure {
    Failure::NotAsExpected(format!("the statistics lack {name}"))
}
