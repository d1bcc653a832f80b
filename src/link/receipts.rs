//! Which frames of the peer arrived, and whether it has to be told.

use crate::wire::frame::Arrived;

/// The newest number that arrived and the 16 before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipts {
    arrived: Option<Arrived>,
    is_owed: bool,
}

impl Receipts {
    /// A frame arrived and was not dropped.
    pub fn note(&mut self, number: u8) {
        self.is_owed = true;
        let Some(Arrived { newest, before }) = self.arrived else {
            self.arrived = Some(Arrived { newest: number, before: 0 });
            return;
        };
        let ahead = number.wrapping_sub(newest);
        let arrived = match ahead {
            0 => return,
            1..128 => {
                let shifted = before.checked_shl(ahead.into()).unwrap_or(0);
                let last = 1_u16.checked_shl(u32::from(ahead) - 1).unwrap_or(0);
                Arrived { newest: number, before: shifted | last }
            }
            _ => {
                let behind = newest.wrapping_sub(number);
                Arrived { newest, before: before | 1_u16.checked_shl(u32::from(behind) - 1).unwrap_or(0) }
            }
        };
        self.arrived = Some(arrived);
    }

    /// Whether any arrived.
    pub fn has_any(&self) -> bool {
        self.arrived.is_some()
    }

    /// There is something to tell besides: the limit.
    pub fn owe(&mut self) {
        self.is_owed = self.arrived.is_some();
    }

    /// What is to be told, if it is.
    pub fn owed(&self) -> Option<Arrived> {
        self.arrived.filter(|_| self.is_owed)
    }

    /// It was told.
    pub fn told(&mut self) {
        self.is_owed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_told_once_in_whatever_order_it_came() {
        let mut receipts = Receipts::default();
        assert_eq!(receipts.owed(), None);
        for number in [254, 0, 1, 255] {
            receipts.note(number);
        }
        assert_eq!(receipts.owed(), Some(Arrived { newest: 1, before: 0b111 }));
        receipts.told();
        assert_eq!(receipts.owed(), None);
        receipts.note(1);
        assert_eq!(receipts.owed(), Some(Arrived { newest: 1, before: 0b111 }), "a copy is answered again");
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let mut receipts = Receipts::default();
        receipts.note(0);
        receipts.note(16);
        assert_eq!(receipts.owed(), Some(Arrived { newest: 16, before: 1 << 15 }));
        receipts.note(17);
        assert_eq!(receipts.owed(), Some(Arrived { newest: 17, before: 1 }));
        receipts.note(0);
        assert_eq!(receipts.owed(), Some(Arrived { newest: 17, before: 1 }));
        receipts.note(100);
        assert_eq!(receipts.owed(), Some(Arrived { newest: 100, before: 0 }));
    }
}
