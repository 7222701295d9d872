use std::error::Error;
use std::io::{BufRead, BufReader};
use reqwest_resilient::blocking::ResilientClient;

/// Returns the first line of a page, and reads no more of it than that takes.
fn first_line(client: &ResilientClient, url: &str) -> Result<String, Box<dyn Error>> {
    let response = client.get(url).send_resilient()?;
    let mut line = String::new();
    BufReader::new(response).read_line(&mut line)?;
    Ok(line)
}
