//! A network that breaks under an established connection: two network namespaces, a cable between.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use reqwest::Body;
use reqwest_resilient::{AttemptLog, BodyFactory, Delivery};

use super::{ms, quick, resilient, settings};

/// The variable with the side of the cable that this process is.
const SIDE: &str = "RESILIENT_TEST_SIDE";
const NAME: &str = "wire::network::a_network_that_breaks_does_not_prove_that_a_post_was_not_sent";
const SERVER: &str = "10.77.0.2";
const PORT: u16 = 8_080;
/// As automake has it: skipped.
const SKIPPED: i32 = 77;

/// The server acts on what it has read of a POST; then it is gone from its network, and the kernel
/// ends the connection with "no route to host", as if there had never been one.
#[test]
fn a_network_that_breaks_does_not_prove_that_a_post_was_not_sent() {
    match std::env::var(SIDE).as_deref() {
        Ok("client") => client(),
        Ok(_) => serve(),
        Err(_) => {
            let can = Command::new("unshare").args(["-n", "true"]).output();
            let output = can.is_ok_and(|it| it.status.success()).then(|| {
                let child = myself("client");
                child.wait_with_output().unwrap()
            });
            match output {
                Some(it) if it.status.code() != Some(SKIPPED) => {
                    let (out, err) = (&it.stdout, &it.stderr);
                    println!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
                    assert!(it.status.success(), "see above");
                }
                _ => println!("not run: no network namespaces can be had here"),
            }
        }
    }
}

/// Runs this test in a network namespace of its own.
fn myself(side: &str) -> Child {
    let mut command = Command::new("unshare");
    command.arg("-n").arg(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).env(SIDE, side);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ip(command: &str) -> bool {
    let output = Command::new("ip").args(command.split(' ')).output();
    output.is_ok_and(|it| it.status.success())
}

/// Tries for up to five seconds.
fn eventually(mut done: impl FnMut() -> bool) -> bool {
    (0..250).any(|_| {
        let is_done = done();
        if !is_done {
            sleep(ms(20));
        }
        is_done
    })
}

fn serve() {
    assert!(eventually(|| ip("link set far up")), "no cable");
    assert!(ip(&format!("addr add {SERVER}/24 dev far")));
    let listener = TcpListener::bind((SERVER, PORT)).unwrap();
    println!("listening");
    let (mut socket, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"once\r\n") {
        let mut piece = [0; 1_024];
        let count = socket.read(&mut piece).unwrap();
        request.extend_from_slice(&piece[..count]);
    }
    assert!(ip("addr flush dev far"));
    println!("processed");
    sleep(ms(30_000));
}

/// Ends the server with the test.
struct Far(Child);

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Has the kernel give a host up after seconds instead of a quarter of an hour. Once connected, lest a
/// busy machine fail the connect.
fn give_up_soon() {
    for (limit, value) in [
        ("tcp_retries2", "3"),
        ("neigh/near/mcast_solicit", "1"),
        ("neigh/near/retrans_time_ms", "100"),
    ] {
        std::fs::write(format!("/proc/sys/net/ipv4/{limit}"), value).unwrap();
    }
}

fn client() {
    // The kernel reports an unreachable host through the loopback.
    if !ip("link set lo up") || !ip("link add near type veth peer name far") {
        std::process::exit(SKIPPED);
    }
    let mut far = Far(myself("server"));
    // It is in the old one until `unshare` has run.
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let id = far.0.id().to_string();
    assert!(eventually(|| network(&id).is_some_and(|it| Some(it) != network("self"))));
    assert!(ip(&format!("link set far netns {id}")));
    assert!(ip("addr add 10.77.0.1/24 dev near") && ip("link set near up"));
    let mut lines = BufReader::new(far.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|it| it == "listening"), "the server did not start");

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Without a limit of its own, so that the kernel's counts.
        let client = settings().tcp_user_timeout(None).build().unwrap();
        let client = resilient(quick(), client);
        let log = AttemptLog::new();
        let request = client.post(format!("http://{SERVER}:{PORT}/")).with_extension(log.clone());
        let upload = BodyFactory::new(async || {
            let later = async {
                tokio::time::sleep(ms(1_000)).await;
                Ok::<_, std::io::Error>("rest")
            };
            let first = futures_util::stream::iter([Ok("once")]);
            let rest = futures_util::stream::once(later);
            Ok(Body::wrap_stream(futures_util::StreamExt::chain(first, rest)))
        });
        let sending = tokio::spawn(request.with_extension(upload).send());
        assert!(lines.any(|it| it == "processed"), "the request did not arrive");
        give_up_soon();
        assert!(ip("neigh flush dev near"));
        let error = sending.await.unwrap().unwrap_err();
        let shown = format!("{error:?}");
        assert!(shown.contains("HostUnreachable"), "another error came: {shown}");
        let attempt = log.history().attempts()[0].clone();
        assert_eq!((log.attempts(), attempt.delivery), (1, Delivery::MaybeProcessed));
    });
}
