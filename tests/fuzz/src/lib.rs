//! The properties of `tests/common/properties` for the fuzz targets.

#[path = "../../common/flash.rs"]
mod flash;
#[path = "../../common/properties/mod.rs"]
pub mod properties;
