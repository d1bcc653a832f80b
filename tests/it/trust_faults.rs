//! Push services that are not to be trusted: no octet of a request, and a status that says what a person has to do.

use crate::push_service::{Identity, PushService, Script};
use crate::rig::{Rig, await_true};

/// D-9325-11, A-UA-38: a certificate for another name, one that has expired, and one of an authority that nobody knows.
#[tokio::test(flavor = "local")]
async fn d_9325_11_no_request_goes_to_a_service_that_cannot_be_verified() {
    for (identity, reason) in [
        (Identity::OtherName, "not valid for name"),
        (Identity::Expired, "expired"),
        (Identity::Unknown, "UnknownIssuer"),
    ] {
        let service = PushService::start(Script { identity, ..Script::default() }).await;
        let mut rig = Rig::with_foreign(&service).await;
        rig.start_gateway();
        let status = rig.await_status(|status| status["needs_person"] == true).await;
        assert_eq!(status["trouble"], "certificate");
        let error = status["last_error"].as_str().expect("a reason").to_owned();
        assert!(error.contains(reason), "{error}");
        await_true(|| service.count("REFUSED") > 0).await;
        assert_eq!((service.count("CONNECTED"), service.count("POST")), (0, 0));
        assert_eq!(status["counters"]["connections"], 0);
    }
}
