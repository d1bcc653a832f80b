//! The frames of the link protocol once more, written from its specification alone.

/// The boot ids of a session: the gateway's and the device's.
pub type Ids = (u32, u32);

/// The flag DEVICE of a frame's kind.
pub const DEVICE: u8 = 0x08;

/// CRC-32C, bit by bit.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for octet in parts.iter().copied().flatten() {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A frame before encoding: `body` and its CRC.
pub fn sealed(session: Option<Ids>, body: &[u8]) -> Vec<u8> {
    let seed = session.map(|(gateway, device)| [gateway.to_le_bytes(), device.to_le_bytes()].concat());
    let crc = crc32c(&[seed.as_deref().unwrap_or_default(), body]);
    [body, &crc.to_le_bytes()].concat()
}

/// A frame as the line carries it.
pub fn frame(session: Option<Ids>, body: &[u8]) -> Vec<u8> {
    cobs_encoded(&sealed(session, body))
}

/// The body of a HELLO.
pub fn hello(flags: u8, boot_id: u32, echo: u32, mtu: u16, message_bytes_max: u16) -> Vec<u8> {
    let mut body = vec![0x10 | flags, 0];
    body.extend(boot_id.to_le_bytes());
    body.extend(echo.to_le_bytes());
    body.extend(mtu.to_le_bytes());
    body.extend(message_bytes_max.to_le_bytes());
    body
}

/// Encodes a frame and ends it with the delimiter.
pub fn cobs_encoded(frame: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut rest = frame;
    loop {
        let end = rest.iter().take(254).position(|&octet| octet == 0).unwrap_or(rest.len().min(254));
        let (block, tail) = rest.split_at(end);
        encoded.push(end as u8 + 1);
        encoded.extend(block);
        match tail {
            [0, tail @ ..] if end < 254 => rest = tail,
            [] if end < 254 => break,
            tail => rest = tail,
        }
    }
    encoded.push(0);
    encoded
}

/// Decodes what is between two delimiters; nothing if octets are missing.
pub fn cobs_decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let mut rest = encoded;
    while let Some((&code, tail)) = rest.split_first() {
        let (block, tail) = tail.split_at_checked(usize::from(code).checked_sub(1)?)?;
        frame.extend(block);
        if code != 255 && !tail.is_empty() {
            frame.push(0);
        }
        rest = tail;
    }
    Some(frame)
}

/// The frames in octets of a line, by the MTU of the side that reads them.
pub fn deframed(mtu: usize, octets: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces: Vec<&[u8]> = octets.split(|&octet| octet == 0).collect();
    pieces.pop(); // Nothing ends it.
    let fitting = pieces.into_iter().filter(|piece| piece.len() < mtu);
    fitting.filter_map(cobs_decoded).filter(|frame| !frame.is_empty()).collect()
}
