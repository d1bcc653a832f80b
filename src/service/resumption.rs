//! TLS sessions that their clients may resume: in memory only, so many, and for so long.
//!
//! What a client holds is a number and no encrypted state, so there is no ticket key that would have to be changed, and
//! whose loss would open what was recorded before. A session ends with its time, with the process, or when a newer one
//! needs its room; a client that comes back with one that has ended does a whole handshake.
//!
//! Source: RFC 9325 §3.4 (resumption), RFC 8446 §4.6.1 (at most seven days).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::limits::{SERVICE_TLS_SESSION_COUNT_MAX, SERVICE_TLS_SESSION_S_MAX};
use crate::time::Duration;

/// The sessions of one service, the oldest first.
#[derive(Default)]
pub(super) struct Sessions {
    kept: Mutex<VecDeque<Session>>,
}

struct Session {
    number: Vec<u8>,
    since: Instant,
    /// Keys, among others.
    state: Zeroizing<Vec<u8>>,
}

impl Sessions {
    /// Wipes what is too old; it is never resumed in any case.
    pub(super) fn forget_old(&self) {
        drop(self.young());
    }

    fn young(&self) -> MutexGuard<'_, VecDeque<Session>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let life = Duration::from_secs(SERVICE_TLS_SESSION_S_MAX);
        while kept.front().is_some_and(|oldest| oldest.since.elapsed() >= life) {
            kept.pop_front();
        }
        kept
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, number: Vec<u8>, state: Vec<u8>) -> bool {
        let mut kept = self.young();
        kept.retain(|session| session.number != number);
        if kept.len() == SERVICE_TLS_SESSION_COUNT_MAX {
            kept.pop_front();
        }
        kept.push_back(Session { number, since: Instant::now(), state: Zeroizing::new(state) });
        true
    }

    fn get(&self, number: &[u8]) -> Option<Vec<u8>> {
        self.young().iter().find(|session| session.number == number).map(|session| session.state.to_vec())
    }

    fn take(&self, number: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.young();
        let at = kept.iter().position(|session| session.number == number)?;
        kept.remove(at).map(|mut session| std::mem::take(&mut *session.state))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(SERVICE_TLS_SESSION_S_MAX);

    /// D-9325-05: a session is there until its time is over, used or not, and wiped then.
    #[tokio::test(start_paused = true)]
    async fn d_9325_05_no_session_outlives_its_time() {
        let sessions = Sessions::default();
        assert!(sessions.can_cache() && sessions.put(vec![1], vec![10]));
        tokio::time::advance(LIFE / 2).await;
        sessions.put(vec![2], vec![20]);
        tokio::time::advance(LIFE / 2 - Duration::from_millis(1)).await;
        assert_eq!(sessions.get(&[1]), Some(vec![10]));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((sessions.get(&[1]), sessions.take(&[1])), (None, None));
        assert_eq!(sessions.get(&[2]), Some(vec![20]));
        tokio::time::advance(LIFE).await;
        sessions.forget_old();
        assert!(sessions.kept.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_taken_once_and_put_anew_with_a_new_time() {
        let sessions = Sessions::default();
        sessions.put(vec![1], vec![10]);
        assert_eq!((sessions.take(&[1]), sessions.take(&[1])), (Some(vec![10]), None));
        sessions.put(vec![1], vec![10]);
        tokio::time::advance(LIFE / 2).await;
        sessions.put(vec![1], vec![11]);
        tokio::time::advance(LIFE / 2).await;
        assert_eq!(sessions.get(&[1]), Some(vec![11]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room() {
        let sessions = Sessions::default();
        let number = |index: usize| index.to_be_bytes().to_vec();
        (0..SERVICE_TLS_SESSION_COUNT_MAX).for_each(|index| assert!(sessions.put(number(index), vec![])));
        assert!(sessions.get(&number(0)).is_some());
        sessions.put(number(SERVICE_TLS_SESSION_COUNT_MAX), vec![]);
        assert!(sessions.get(&number(0)).is_none() && sessions.get(&number(1)).is_some());
        assert_eq!(sessions.kept.lock().unwrap().len(), SERVICE_TLS_SESSION_COUNT_MAX);
    }
}
