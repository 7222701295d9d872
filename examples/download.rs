//! How do I download files that arrive? `cargo run --example download`
//!
//! Without arguments it starts a server on this machine that cuts every connection, and fetches five
//! files from it. With URLs it fetches those, into the current folder. `--check` draws no bars.

#[path = "download/server.rs"]
mod server;

use std::error::Error;
use std::path::PathBuf;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest_resilient::{Downloaded, ResilientClient, ResilientConfig, Verifier};
use sha2::{Digest, Sha256};

type Failure = Box<dyn Error + Send + Sync>;

/// A file to fetch.
struct Wanted {
    url: String,
    path: PathBuf,
    sha256: Option<String>,
}

/// Compares the SHA-256 of the bytes with the expected one.
struct Sha256Check {
    hasher: Sha256,
    expected: Option<String>,
}

impl Verifier for Sha256Check {
    fn restart(&mut self) {
        self.hasher = Sha256::new();
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let digest = format!("{:x}", self.hasher.finalize_reset());
        match &self.expected {
            Some(expected) if *expected != digest => Err(format!("SHA-256 is {digest}").into()),
            _ => Ok(()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (flags, urls): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|it| it.starts_with("--"));
    let checks = flags.iter().any(|it| it == "--check");
    let folder = std::env::temp_dir().join(format!("download-example-{}", std::process::id()));
    let wanted = if urls.is_empty() {
        std::fs::create_dir_all(&folder)?;
        let files = server::start()?.into_iter();
        files
            .map(|(url, sha256)| Wanted {
                path: folder.join(url.rsplit('/').next().unwrap_or("file")),
                sha256: Some(sha256),
                url,
            })
            .collect()
    } else {
        urls.into_iter().map(of_url).collect::<Result<Vec<_>, _>>()?
    };

    let client = ResilientClient::new(ResilientConfig::batch())?;
    let target = if checks { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bars = MultiProgress::with_draw_target(target);
    let tasks: Vec<_> = wanted
        .into_iter()
        .map(|it| tokio::spawn(fetch(client.clone(), it, bars.add(ProgressBar::new(0)))))
        .collect();
    let mut failures = 0;
    for task in tasks {
        match task.await? {
            Ok((path, it)) => println!(
                "{}: {} bytes, resumed {} times, {} bytes twice, {} requests",
                path.display(),
                it.bytes(),
                it.resumes(),
                it.repeated(),
                it.attempts(),
            ),
            Err(error) => {
                failures += 1;
                println!("{error}");
            }
        }
    }
    let _ = std::fs::remove_dir_all(folder);
    if failures > 0 { Err(format!("{failures} failed").into()) } else { Ok(()) }
}

async fn fetch(
    client: ResilientClient,
    wanted: Wanted,
    bar: ProgressBar,
) -> Result<(PathBuf, Downloaded), Failure> {
    let style = "{msg:20} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(style)?);
    let Wanted { url, path, sha256 } = wanted;
    bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let shown = bar.clone();
    let downloaded = client
        .get(url)
        .download()
        .verify(Sha256Check { hasher: Sha256::new(), expected: sha256 })
        .on_progress(move |it| {
            shown.set_length(it.total.unwrap_or(it.received));
            shown.set_position(it.received);
        })
        .to_file(&path)
        .await?;
    bar.finish();
    Ok((path, downloaded))
}

fn of_url(url: String) -> Result<Wanted, Failure> {
    let parsed = reqwest::Url::parse(&url)?;
    let name = parsed.path_segments().and_then(|mut it| it.next_back()).filter(|it| !it.is_empty());
    let path = PathBuf::from(name.ok_or("a URL needs a file name")?);
    Ok(Wanted { url, path, sha256: None })
}
