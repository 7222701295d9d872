//! Errors as middleware and transports return them.

use super::*;

fn url() -> Url {
    "http://a.example/".parse().unwrap()
}

/// Returns the failure of an error that a middleware returned.
fn of_middleware(error: &(dyn Error + 'static)) -> Failure {
    AttemptError { error, transport: None, sent: &url(), after_head: false }.read()
}

#[test]
fn an_io_error_proves_nothing_and_says_nothing_of_the_host() {
    let check = |io, kind| {
        let error = io::Error::new(io, "it happened");
        assert_eq!(of_middleware(&error), Failure::local(kind, MaybeProcessed));
        assert_eq!(root_text(&error), "it happened");
    };
    check(io::ErrorKind::ConnectionRefused, FailureKind::Connect);
    check(io::ErrorKind::HostUnreachable, FailureKind::Disconnect);
    check(io::ErrorKind::ConnectionReset, FailureKind::Disconnect);
    check(io::ErrorKind::BrokenPipe, FailureKind::Disconnect);
    check(io::ErrorKind::TimedOut, FailureKind::Timeout);
    check(io::ErrorKind::InvalidInput, FailureKind::Other);
}

#[test]
fn a_request_that_cannot_be_built_is_permanent() {
    let error = reqwest::Client::new().get("nonsense").build().unwrap_err();
    assert_eq!(kind_of(&error), FailureKind::Builder);
    let failure = of_middleware(&error);
    assert_eq!((failure.kind, failure.delivery), (FailureKind::Builder, MaybeProcessed));
}

#[test]
fn an_endless_chain_ends() {
    #[derive(Debug)]
    struct Ring;
    impl fmt::Display for Ring {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ring")
        }
    }
    impl Error for Ring {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Self)
        }
    }
    assert_eq!(of_middleware(&Ring).kind, FailureKind::Other);
}
