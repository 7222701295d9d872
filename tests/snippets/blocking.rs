use reqwest_resilient::blocking::ResilientClient;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = ResilientClient::builder().build()?;
    println!("{}", client.get("https://example.com/").send_resilient()?.text()?);
    Ok(())
}
