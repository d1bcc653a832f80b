//! What is above a link here: it always has another message, or asks and answers; and it looks at what it gets.

/// One side's application.
pub struct Application {
    bytes: usize,
    /// Messages that it still has to send.
    pub waiting: u64,
    answers: bool,
    sent: u64,
    /// Messages that it got.
    pub received: u64,
    octets: Vec<u8>,
}

impl Application {
    fn new(bytes: usize, waiting: u64, answers: bool) -> Self {
        Self { bytes, waiting, answers, sent: 0, received: 0, octets: vec![0; bytes] }
    }

    /// It sends nothing.
    pub fn silent(bytes: usize) -> Self {
        Self::new(bytes, 0, false)
    }

    /// It sends without end.
    pub fn endless(bytes: usize) -> Self {
        Self::new(bytes, u64::MAX, false)
    }

    /// It answers each message.
    pub fn answering(bytes: usize) -> Self {
        Self::new(bytes, 0, true)
    }

    /// The message to be sent next.
    pub fn next(&mut self) -> Option<&[u8]> {
        if self.waiting == 0 {
            return None;
        }
        fill(&mut self.octets, self.sent);
        Some(&self.octets)
    }

    /// It was taken.
    pub fn sent(&mut self) {
        self.sent += 1;
        self.waiting -= 1;
    }

    /// Takes a message: the next one of the other side, whole, or the bench ends here.
    pub fn take(&mut self, message: &[u8]) {
        let mut expected = vec![0; self.bytes];
        fill(&mut expected, self.received);
        assert!(message == expected, "message {} is not as it was sent", self.received);
        self.received += 1;
        self.waiting += u64::from(self.answers);
    }
}

/// Octets without a zero, as text has, which the framing makes longest.
fn fill(octets: &mut [u8], number: u64) {
    for (at, octet) in octets.iter_mut().enumerate() {
        *octet = 1 + ((number * 31 + at as u64 * 7) % 255) as u8;
    }
}
