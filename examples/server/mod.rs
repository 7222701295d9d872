//! A server on this machine for the examples: it gives each response once, and the last for ever.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

/// Starts a server with these responses (`"503 Busy"`, or `"200 OK|a body"`); returns its URL.
pub(crate) fn start(answers: &'static [&'static str]) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { continue };
            let answer = answers[i.min(answers.len() - 1)];
            let (status, body) = answer.split_once('|').unwrap_or((answer, ""));
            let head = format!("content-length: {}\r\nconnection: close", body.len());
            let answer = format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}");
            let mut request = vec![0; 16 * 1024];
            let length = stream.read(&mut request).unwrap_or_default();
            let line = String::from_utf8_lossy(&request[..length]);
            println!("  server: {} -> {status}", line.lines().next().unwrap_or_default());
            let _ = stream.write_all(answer.as_bytes());
            // Read what is left of an upload, so that closing does not reset the connection.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            while stream.read(&mut request).is_ok_and(|it| it > 0) {}
        }
    });
    Ok(url)
}
