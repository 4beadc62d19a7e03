//! Which vectors are armed: what the guest's registers ask for, held against what the host was told last.

use super::effect::Effect;
use crate::host::{MessageKind, VectorChange, VectorState};
use crate::ports::MsiMessage;

/// What the registers ask of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing is delivered: masked.
    Silent,
    /// Delivered as this message.
    Message(MsiMessage),
}

/// What the host was told of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing since the kind was turned on: it has no eventfd and no GSI.
    Nothing,
    Armed(MsiMessage),
    Masked,
}

/// The vectors of a function, of the kind that is on.
#[derive(Clone, Debug, Default)]
pub struct Vectors {
    /// The kind that is on, and how many vectors it has.
    on: Option<(MessageKind, u16)>,
    told: Vec<Told>,
    /// The host is yet to turn the kind on. It does so when the guest does, not when a vector is armed: a function may
    /// look at its enable bit, as NVMe drives do when a queue is made.
    turn_on: bool,
    /// The host could not do what it was told of one of them.
    some_failed: bool,
}

impl Vectors {
    /// Turns on a kind with so many vectors, none of them armed, after turning off another kind or number; `None` turns all
    /// off.
    pub fn switch(&mut self, on: Option<(MessageKind, u16)>, effects: &mut Vec<Effect>) {
        if self.on == on {
            return;
        }
        if let Some((old, _)) = self.on {
            effects.push(Effect::DisableVectors(old));
        }
        self.on = on;
        self.turn_on = on.is_some();
        self.some_failed = false;
        self.told = vec![Told::Nothing; usize::from(on.map_or(0, |(_, count)| count))];
    }

    /// Brings the host to what the registers ask of these vectors.
    pub fn settle(
        &mut self,
        vectors: std::ops::Range<u16>,
        want: impl Fn(u16) -> Want,
        effects: &mut Vec<Effect>,
    ) {
        let Some((kind, count)) = self.on else { return };
        let mut changes = Vec::new();
        for vector in vectors {
            let Some(told) = self.told.get_mut(usize::from(vector)) else { break };
            let state = match (*told, want(vector)) {
                (Told::Armed(old), Want::Message(new)) if old == new => continue,
                (_, Want::Message(message)) => {
                    *told = Told::Armed(message);
                    VectorState::Armed(message)
                }
                (Told::Armed(_), Want::Silent) => {
                    *told = Told::Masked;
                    VectorState::Masked
                }
                (Told::Nothing | Told::Masked, Want::Silent) => continue,
            };
            changes.push(VectorChange { vector, state });
        }
        if std::mem::take(&mut self.turn_on) || !changes.is_empty() {
            effects.push(Effect::SetVectors(kind, count, changes));
        }
    }

    /// The host could not do what it was told of a vector, which is silent now and has nothing any more; it is told again
    /// when the guest writes to the vector next, or turns all on.
    pub fn failed(&mut self, kind: MessageKind, vector: u16) {
        if self.on.is_some_and(|(on, _)| on == kind)
            && let Some(told) = self.told.get_mut(usize::from(vector))
        {
            *told = Told::Nothing;
            self.some_failed = true;
        }
    }

    /// Some of them failed since the kind was turned on, so that a write which changes nothing may still help.
    pub fn some_failed(&self) -> bool {
        self.some_failed
    }

    /// The host holds back what this vector signals.
    pub fn is_masked(&self, kind: MessageKind, vector: u16) -> bool {
        self.on.is_some_and(|(on, _)| on == kind) && self.told.get(usize::from(vector)) == Some(&Told::Masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MsiMessage = MsiMessage { address: 0xfee0_0000, data: 0x31 };
    const B: MsiMessage = MsiMessage { address: 0xfee0_1000, data: 0x31 };

    fn settle(vectors: &mut Vectors, want: &[Want]) -> Vec<(u16, VectorState)> {
        let mut effects = Vec::new();
        vectors.settle(0..want.len() as u16, |v| want[usize::from(v)], &mut effects);
        match effects.as_slice() {
            [] => vec![],
            [Effect::SetVectors(MessageKind::Msix, 3, changes)] => {
                changes.iter().map(|c| (c.vector, c.state)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_changes_is_told_and_in_one_batch() {
        use Want::*;
        let mut vectors = Vectors::default();
        vectors.switch(Some((MessageKind::Msix, 3)), &mut Vec::new());
        let mut effects = Vec::new();
        vectors.settle(0..3, |_| Silent, &mut effects);
        assert_eq!(effects, [Effect::SetVectors(MessageKind::Msix, 3, vec![])], "turned on, none armed");
        effects.clear();
        vectors.settle(0..3, |_| Silent, &mut effects);
        assert_eq!(effects, []);
        assert_eq!(
            settle(&mut vectors, &[Message(A), Silent, Message(A)]),
            [(0, VectorState::Armed(A)), (2, VectorState::Armed(A))]
        );
        assert_eq!(settle(&mut vectors, &[Message(A), Silent, Message(B)]), [(2, VectorState::Armed(B))]);
        assert_eq!(settle(&mut vectors, &[Silent, Silent, Message(B)]), [(0, VectorState::Masked)]);
        assert!(vectors.is_masked(MessageKind::Msix, 0) && !vectors.is_masked(MessageKind::Msix, 1));
        assert_eq!(settle(&mut vectors, &[Silent, Silent, Message(B)]), []);
        assert_eq!(settle(&mut vectors, &[Message(A), Silent, Message(B)]), [(0, VectorState::Armed(A))]);
    }

    #[test]
    fn a_vector_that_failed_is_told_again() {
        let mut vectors = Vectors::default();
        vectors.switch(Some((MessageKind::Msix, 3)), &mut Vec::new());
        settle(&mut vectors, &[Want::Message(A), Want::Message(A), Want::Silent]);
        for (kind, vector) in [(MessageKind::Msi, 0), (MessageKind::Msix, 9)] {
            vectors.failed(kind, vector);
        }
        assert!(!vectors.some_failed());
        vectors.failed(MessageKind::Msix, 1);
        assert!(vectors.some_failed());
        assert_eq!(
            settle(&mut vectors, &[Want::Message(A), Want::Message(A), Want::Silent]),
            [(1, VectorState::Armed(A))]
        );
        vectors.switch(None, &mut Vec::new());
        assert!(!vectors.some_failed());
    }

    #[test]
    fn switching_turns_the_old_kind_off_once() {
        let mut vectors = Vectors::default();
        let mut effects = Vec::new();
        vectors.switch(None, &mut effects);
        vectors.switch(Some((MessageKind::Msi, 1)), &mut effects);
        assert_eq!(effects, []);
        vectors.settle(0..1, |_| Want::Message(A), &mut effects);
        vectors.switch(Some((MessageKind::Msix, 4)), &mut effects);
        vectors.switch(Some((MessageKind::Msix, 4)), &mut effects);
        assert_eq!(effects.len(), 2);
        assert_eq!(effects[1], Effect::DisableVectors(MessageKind::Msi));
        vectors.settle(0..0, |_| Want::Message(A), &mut effects);
        assert_eq!(effects[2..], [Effect::SetVectors(MessageKind::Msix, 4, vec![])]);
        vectors.settle(9..12, |_| Want::Message(A), &mut effects);
        assert_eq!(effects.len(), 3, "vectors that do not exist");
    }
}
