//! User agents that are cheap: they count what is pushed, and acknowledge it by the order in which it was sent.

use std::time::Instant;

use tokio::sync::mpsc;

use super::dial::Server;
use super::http2::{Http2, PUSH_PROMISE};
use crate::process::now;

/// Acknowledgements that wait for their answer; the service takes 100 requests at once.
const WAITING_MAX: usize = 64;

pub struct Agent {
    http: Http2,
    subscription: String,
}

impl Agent {
    pub async fn connect(server: &Server, subscription: &str) -> Self {
        let http = Http2::connect(server).await.expect("the service is there");
        Self { http, subscription: subscription.to_owned() }
    }

    /// Asks for messages, and waits until the service has read that.
    pub async fn monitor(&mut self) {
        self.http.request("GET", &self.subscription, &[]);
        self.http.ping().await;
    }

    /// Asks for messages, and acknowledges these, which are all there are; returns when the last one came.
    pub async fn receive(&mut self, messages: &[String]) -> Instant {
        self.http.request("GET", &self.subscription, &[]);
        self.http.flush().await;
        let (mut received, mut deleted, mut answered, mut last) = (0, 0, 0, now());
        while answered < messages.len() {
            let frame = self.http.next().await;
            if frame.ends_stream() && frame.is_pushed() {
                received += 1;
                last = now();
            } else if frame.ends_stream() {
                answered += 1;
            }
            if self.http.has_more() {
                continue;
            }
            while deleted < received && deleted - answered < WAITING_MAX {
                self.http.request("DELETE", &messages[deleted], &[]);
                deleted += 1;
            }
            self.http.flush().await;
        }
        last
    }

    /// Asks for messages, and waits for the first one.
    pub async fn first(&mut self) {
        self.http.request("GET", &self.subscription, &[]);
        self.http.flush().await;
        loop {
            let frame = self.http.next().await;
            if frame.ends_stream() && frame.is_pushed() {
                return;
            }
        }
    }

    /// Tells when anything is promised, for ever.
    pub async fn watch(mut self, index: usize, promised: mpsc::Sender<(usize, Instant)>) {
        loop {
            if self.http.next().await.kind == PUSH_PROMISE && promised.send((index, now())).await.is_err() {
                return;
            }
        }
    }
}
