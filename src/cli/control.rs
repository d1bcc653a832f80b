//! How commands find and ask a running gateway.

use std::path::PathBuf;

use serde_json::Value;

use super::{Failure, block_on, check};
use crate::control::{self, Request};

/// Where the gateway listens.
#[derive(clap::Args)]
pub struct Socket {
    /// Configuration file of the running gateway
    #[arg(long, global = true, value_name = "FILE", default_value = check::CONFIG_FILE)]
    config: PathBuf,
    /// Its control socket, instead of the one that the configuration names
    #[arg(long, global = true, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Socket {
    /// Asks the gateway and waits for its answer.
    ///
    /// # Errors
    /// What the gateway says, or that it cannot be asked.
    pub fn ask(&self, request: &Request) -> Result<Value, Failure> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => check::load(&self.config)?.control,
        };
        let mut answer = Err(Failure::failed("no answer"));
        block_on(async {
            answer = control::ask(&path, request).await.map_err(Failure::failed);
            Ok(())
        })?;
        answer
    }
}
