//! How commands find and ask a running gateway.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Failure, block_on, check};
use crate::control::{self, Request};

/// How often something that is not there yet is asked for.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// Where the gateway listens.
#[derive(clap::Args)]
pub struct Socket {
    /// Configuration file of the running gateway
    #[arg(long, global = true, value_name = "FILE", default_value_os_t = check::config_file())]
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
        self.ask_until(request, Duration::ZERO)
    }

    /// Asks the gateway again and again until it answers with something, for a while at most; gives its last answer.
    ///
    /// # Errors
    /// What the gateway says, or that it cannot be asked.
    pub fn ask_until(&self, request: &Request, wait: Duration) -> Result<Value, Failure> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => check::load(&self.config)?.control,
        };
        let mut answer = Value::Null;
        block_on(async {
            let start = Instant::now();
            loop {
                answer = control::ask(&path, request).await.map_err(Failure::failed)?;
                if !answer.is_null() || start.elapsed() >= wait {
                    return Ok(());
                }
                sleep(ASK_INTERVAL).await;
            }
        })?;
        Ok(answer)
    }
}
