//! TLS as it looks on the wire: records, and the two hellos, which are not encrypted.
//!
//! Source: RFC 8446 §4.1 (hellos), §5.1 (records); RFC 5246 §7.4.1 is the same for TLS 1.2.

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

pub const SERVER_NAME: u16 = 0;
pub const SUPPORTED_GROUPS: u16 = 10;
pub const SIGNATURE_ALGORITHMS: u16 = 13;
pub const ALPN: u16 = 16;
pub const PRE_SHARED_KEY: u16 = 41;
pub const EARLY_DATA: u16 = 42;
pub const SUPPORTED_VERSIONS: u16 = 43;
pub const POST_HANDSHAKE_AUTH: u16 = 49;

/// The most that a record may hold: 2^14 octets and what encryption adds in TLS 1.2.
const RECORD_BYTES_MAX: usize = 16_384 + 2_048;

/// The records in what one side sent: kind and content. The last one may be on its way.
///
/// None when anything is no record.
pub fn records(mut octets: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut records = Vec::new();
    while let [kind, major, minor, rest @ ..] = octets {
        if !(20..=23).contains(kind) || (*major, *minor) > (3, 3) || *major != 3 {
            return None;
        }
        let [high, low, content @ ..] = rest else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > RECORD_BYTES_MAX {
            return None;
        }
        let Some(content) = content.get(..length) else { break };
        records.push((*kind, content));
        octets = &octets[5 + length..];
    }
    Some(records)
}

/// What a client offers, or what a server took of it.
#[derive(Debug)]
pub struct Hello {
    pub suites: Vec<u16>,
    pub compressions: Vec<u8>,
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// The hello with which a client begins.
    pub fn of_client(octets: &[u8]) -> Self {
        let message = first_message(octets);
        let mut at = Reader::in_message(&message, CLIENT_HELLO);
        at.take(2 + 32);
        at.block(1);
        let suites = numbers(at.block(2));
        let compressions = at.block(1).to_vec();
        Self { suites, compressions, extensions: at.extensions() }
    }

    /// The hello with which a server answers.
    pub fn of_server(octets: &[u8]) -> Self {
        let message = first_message(octets);
        let mut at = Reader::in_message(&message, SERVER_HELLO);
        at.take(2 + 32);
        at.block(1);
        let (suites, compressions) = (numbers(at.take(2)), at.take(1).to_vec());
        Self { suites, compressions, extensions: at.extensions() }
    }

    pub fn has(&self, extension: u16) -> bool {
        self.extensions.iter().any(|(kind, _)| *kind == extension)
    }

    /// The list of numbers in an extension, behind the octets that tell its length.
    pub fn list(&self, extension: u16, length_bytes: usize) -> Vec<u16> {
        let (_, content) = self.extensions.iter().find(|(kind, _)| *kind == extension).expect("it is there");
        numbers(&content[length_bytes..])
    }
}

/// The first message of a handshake, which may be spread over records.
fn first_message(octets: &[u8]) -> Vec<u8> {
    let records = records(octets).expect("records");
    let handshake = records.iter().take_while(|(kind, _)| *kind == HANDSHAKE);
    let content = handshake.map(|(_, content)| *content).collect::<Vec<_>>().concat();
    let length = u32::from_be_bytes([0, content[1], content[2], content[3]]) as usize;
    content[..4 + length].to_vec()
}

fn numbers(octets: &[u8]) -> Vec<u16> {
    octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// Where in a message the reader is.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn in_message(message: &'m [u8], kind: u8) -> Self {
        assert_eq!(message[0], kind);
        Self(&message[4..])
    }

    fn take(&mut self, count: usize) -> &'m [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// Octets behind their number, which has so many octets.
    fn block(&mut self, length_bytes: usize) -> &'m [u8] {
        let length = self.take(length_bytes).iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
        self.take(length)
    }

    fn extensions(mut self) -> Vec<(u16, Vec<u8>)> {
        let mut all = if self.0.is_empty() { Self(&[]) } else { Self(self.block(2)) };
        let mut extensions = Vec::new();
        while !all.0.is_empty() {
            let kind = numbers(all.take(2))[0];
            extensions.push((kind, all.block(2).to_vec()));
        }
        extensions
    }
}

/// A record with the hello of a client that knows this version, 1.2 or 1.3, and these suites.
pub fn client_hello(version: [u8; 2], suites: &[u16]) -> Vec<u8> {
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    // A point of the curve, as good as any.
    let key = [&[0, 29][..], &behind_length(2, &[&[9][..], &[0; 31]].concat())].concat();
    let extensions = [
        (SUPPORTED_GROUPS, behind_length(2, &[0, 29, 0, 23])),
        (11, behind_length(1, &[0])),
        (SIGNATURE_ALGORITHMS, behind_length(2, &[4, 3, 5, 3, 8, 4, 8, 5, 4, 1, 5, 1, 2, 1, 2, 3])),
        (23, vec![]),
        (SUPPORTED_VERSIONS, behind_length(1, &version)),
        (45, behind_length(1, &[1])),
        (51, behind_length(2, &key)),
    ];
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &behind_length(2, content)].concat())
        .collect();
    let body = [&[3, 3][..], &[7; 32], &[0], &behind_length(2, &suites), &[1, 0], &behind_length(2, &extensions)];
    let message = [&[CLIENT_HELLO][..], &behind_length(3, &body.concat())].concat();
    [&[HANDSHAKE, 3, 1][..], &behind_length(2, &message)].concat()
}

/// A record with the hello of a server of this version that took a suite and a compression, and nothing else.
pub fn server_hello(version: [u8; 2], suite: u16, compression: u8) -> Vec<u8> {
    let body = [&version[..], &[7; 32], &[0], &suite.to_be_bytes(), &[compression]].concat();
    let message = [&[SERVER_HELLO][..], &behind_length(3, &body)].concat();
    [&[HANDSHAKE, 3, 3][..], &behind_length(2, &message)].concat()
}

fn behind_length(length_bytes: usize, octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).expect("short").to_be_bytes();
    [&length[4 - length_bytes..], octets].concat()
}
