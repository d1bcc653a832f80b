//! Golden bytes of the link protocol.
